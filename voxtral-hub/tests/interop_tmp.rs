#![allow(dead_code)]
#[path = "hub/mock.rs"]
mod mock;
use voxtral_hub::HubBuilder;
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
#[test]
fn serve() {
    let w: Vec<u8> = (0..300_000u32)
        .map(|a| (a.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mock = mock::Mock::new(
        "org/voxtral",
        COMMIT,
        &[
            ("config.json", b"{}"),
            ("tekken.json", b"{\"a\":1}"),
            ("model.safetensors", &w),
        ],
    );
    let c = std::path::Path::new("/tmp/interop/rust");
    let hub = HubBuilder::new(c).endpoint(&mock.endpoint).build().unwrap();
    println!("{:?}", hub.fetch("org/voxtral", None, &mut |_| {}).unwrap());
    // leave a part for a resume of ours
    std::fs::write("/tmp/interop/endpoint", &mock.endpoint).unwrap();
    while !std::path::Path::new("/tmp/interop/done").exists() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    for r in mock.take_requests() {
        println!("{} {} {:?}", r.method, r.path, r.range);
    }
    let off = HubBuilder::new("/tmp/interop/python")
        .offline(true)
        .build()
        .unwrap();
    println!(
        "offline on python's cache: {:?}",
        off.fetch("org/voxtral", None, &mut |_| {})
    );
    println!("{:?}", off.cached());
    let on = HubBuilder::new("/tmp/interop/python")
        .endpoint(&mock.endpoint)
        .build()
        .unwrap();
    println!(
        "{:?}",
        on.fetch("org/voxtral", None, &mut |d| panic!("{d:?}"))
    );
    for r in mock.take_requests() {
        println!("{} {} {:?}", r.method, r.path, r.range);
    }
}
