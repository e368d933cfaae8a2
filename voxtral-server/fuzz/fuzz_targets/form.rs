//! The multipart parser, and what reads its fields.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    voxtral_server::fuzzing::form("multipart/form-data; boundary=x", bytes);
});
