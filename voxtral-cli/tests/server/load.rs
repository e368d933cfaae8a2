//! Many requests at once, and the end.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::scene::{ENGLISH, Form, Response, Server, sample_bytes};

fn english() -> Form {
    Form::new().file("digits.wav", &sample_bytes("digits-en.wav"))
}

/// Minutes of digits, for requests that take a while.
fn long(minutes: u32) -> Form {
    let file = sample_bytes("digits-en.wav");
    let sound = file[44..].repeat((minutes * 60 * 10).div_ceil(43) as usize);
    let mut whole = file[..44].to_vec();
    whole.extend(&sound);
    let length = whole.len() as u32;
    whole[4..8].copy_from_slice(&(length - 8).to_le_bytes());
    whole[40..44].copy_from_slice(&(length - 44).to_le_bytes());
    Form::new().file("long.wav", &whole)
}

/// A figure of `/metrics`.
fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").body;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn many_at_once_get_their_own_answers() {
    let server = Server::start();
    let digits = [
        ("digits-en.wav", ENGLISH),
        ("digits-fr.wav", "trois un quatre un cinq neuf"),
    ];
    thread::scope(|scope| {
        for i in 0..24 {
            let (server, digits) = (&server, &digits);
            scope.spawn(move || {
                let (file, _) = digits[i % digits.len()];
                let model = ["demo", "demo-realtime"][i / 2 % 2];
                let form = Form::new()
                    .file(file, &sample_bytes(file))
                    .text("model", model);
                let alone = &server.transcribe(&form).json()["text"];
                if i % 2 == 0 {
                    assert_eq!(alone, ENGLISH);
                } else {
                    assert_ne!(alone, ENGLISH);
                    assert!(alone.as_str().unwrap().split(' ').count() >= 5, "{alone}");
                }
            });
        }
    });
    assert!(metric(&server, "voxtral_audio_seconds_total") > 24.0 * 4.0);
    assert!(metric(&server, "voxtral_tokens_total") > 24.0 * 6.0);
    assert_eq!(metric(&server, "voxtral_running"), 0.0);
}

/// A short clip is answered long before a long one that came first.
#[test]
fn a_long_file_lets_a_short_one_pass() {
    let server = Server::start();
    thread::scope(|scope| {
        let long = scope.spawn(|| (server.transcribe(&long(20)), Instant::now()));
        wait_until("the long one runs", || {
            metric(&server, "voxtral_running") > 0.0
        });
        let response = server.transcribe(&english());
        let short = Instant::now();
        assert_eq!(response.json()["text"], ENGLISH);
        let (response, end) = long.join().unwrap();
        assert_eq!(response.status, 200);
        assert!(short < end, "the short one waited for the long one");
    });
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = Server::with(&["--max-batch-size", "1", "--max-queue", "1"]);
    thread::scope(|scope| {
        let running: Vec<_> = (0..2)
            .map(|_| {
                let server = &server;
                scope.spawn(move || server.transcribe(&long(10)).status)
            })
            .collect();
        wait_until("one runs and one waits", || {
            metric(&server, "voxtral_running") + metric(&server, "voxtral_queue") == 2.0
        });
        let response = server.transcribe(&english());
        assert_eq!(response.status, 429, "{response:?}");
        assert!(
            response
                .header("retry-after")
                .unwrap()
                .parse::<u64>()
                .unwrap()
                >= 1
        );
        assert_eq!(response.json()["error"]["code"], "rate_limit_exceeded");
        for request in running {
            assert_eq!(request.join().unwrap(), 200);
        }
    });
    assert_eq!(server.transcribe(&english()).status, 200);
}

/// Whoever goes away is not computed for.
#[test]
fn a_client_that_vanishes_frees_its_place() {
    let server = Server::with(&["--max-batch-size", "1", "--max-queue", "8"]);
    for _ in 0..3 {
        let mut stream = server.connect();
        let body = long(30).text("stream", "true");
        body.send(&mut stream);
        wait_until("it runs", || metric(&server, "voxtral_running") > 0.0);
        drop(stream);
        wait_until("it is gone", || metric(&server, "voxtral_running") == 0.0);
    }
    assert_eq!(server.transcribe(&english()).json()["text"], ENGLISH);
    assert!(metric(&server, "voxtral_audio_seconds_total") < 60.0);
}

/// SIGTERM lets what runs come to its end and takes nothing new.
#[cfg(unix)]
#[test]
fn it_stops_when_what_runs_is_done() {
    let mut server = Server::start();
    let mut running = server.connect();
    let body = long(10);
    body.send(&mut running);
    wait_until("it runs", || metric(&server, "voxtral_running") > 0.0);
    let mut idle = server.connect();
    terminate(&server);
    thread::sleep(Duration::from_millis(200));
    // Connections that were there, and new ones, get nothing more.
    let _ = idle.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut idle, &mut rest);
    let answer = String::from_utf8_lossy(&rest);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 503"),
        "{answer}"
    );
    assert_eq!(Response::read(&mut running).status, 200);
    assert!(server.process.wait().unwrap().success());
}

/// SIGTERM gives up what takes too long.
#[cfg(unix)]
#[test]
fn it_stops_in_time_whatever_runs() {
    let mut server = Server::with(&["--grace", "0.5"]);
    thread::scope(|scope| {
        let address = server.address.clone();
        let body = long(30);
        scope.spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            body.send(&mut stream);
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
        });
        wait_until("it runs", || metric(&server, "voxtral_running") > 0.0);
        terminate(&server);
        assert!(server.process.wait().unwrap().success());
    });
}

#[cfg(unix)]
fn terminate(server: &Server) {
    let id = server.process.id().to_string();
    let status = Command::new("kill").args(["-TERM", &id]).status();
    assert!(status.unwrap().success());
}

/// A thousand requests, eight at a time, leave no more behind than ten do.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_requests() {
    // What glibc keeps of blocks that were freed between others grows for some hundred requests, to 5
    // or 6 MiB here. So told, it asks the system for each block of 8 KiB and more, and gives it back:
    // what is left is what the server holds.
    let server = Server::of(Command::new(env!("CARGO_BIN_EXE_voxtral")).envs([
        ("MALLOC_ARENA_MAX", "1"),
        ("MALLOC_MMAP_THRESHOLD_", "8192"),
        ("MALLOC_MMAP_MAX_", "1000000"),
        ("MALLOC_TRIM_THRESHOLD_", "8192"),
    ]));
    let serve = |count: usize| {
        let left = AtomicUsize::new(count);
        let take = |n: usize| n.checked_sub(1);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while left.fetch_update(Relaxed, Relaxed, take).is_ok() {
                        assert_eq!(server.transcribe(&english()).json()["text"], ENGLISH);
                    }
                });
            }
        });
        wait_until("it rests", || metric(&server, "voxtral_running") == 0.0);
        resident(&server)
    };
    let before = serve(10);
    let after = serve(990);
    eprintln!("{before} KiB after 10 requests, {after} KiB after 1000");
    // Threads that read requests end when they had nothing to do for some seconds.
    wait_until("it holds as much as before", || {
        resident(&server) as f64 <= 1.05 * before as f64
    });
}

/// Resident memory in KiB.
#[cfg(target_os = "linux")]
fn resident(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.process.id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
