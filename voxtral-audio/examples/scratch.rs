//! x
#![allow(clippy::print_stdout)]
fn main() {
    for path in std::env::args().skip(1) {
        match voxtral_audio::Decoder::open(&path) {
            Ok(mut d) => {
                let n: usize = (&mut d).map(|c| c.unwrap().len()).sum();
                println!("{path} {} s truncated {} skipped {} {d:?}", n as f64 / d.sample_rate() as f64, d.truncated(), d.skipped());
            }
            Err(e) => println!("{path} ERR {e} / {:?}", std::error::Error::source(&e).map(|s| s.to_string())),
        }
    }
}
