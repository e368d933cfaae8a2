//! What reads the messages of live clients, in every dialect: a message in each line.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    voxtral_server::fuzzing::events(text);
});
