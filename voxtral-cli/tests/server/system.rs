//! What the server says of itself.

use crate::scene::Server;

#[test]
fn it_tells_its_models_and_that_it_is_well() {
    let server = Server::with(&["--served-model-name", "whisper-1"]);
    assert_eq!(server.get("/health").json()["status"], "ok");
    assert_eq!(server.get("/ready").json()["status"], "ready");
    let list = server.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let names: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(names, ["demo", "whisper-1", "demo-realtime"]);
    let model = server.get("/v1/models/whisper-1").json();
    assert_eq!(
        (&model["id"], &model["root"]),
        (&"whisper-1".into(), &"demo".into())
    );
    assert_eq!(server.get("/v1/models/absent").status, 404);
}

#[test]
fn requests_have_ids() {
    let server = Server::start();
    let ids = [server.get("/health"), server.get("/nowhere")];
    let ids = ids.map(|response| response.header("x-request-id").unwrap().to_owned());
    assert!(ids[0] != ids[1] && ids[0].len() > 8, "{ids:?}");
    let response = server.request("GET", "/health", &[("x-request-id", "mine-7")], b"");
    assert_eq!(response.header("x-request-id"), Some("mine-7"));
}

#[test]
fn figures_are_those_of_prometheus() {
    let server = Server::start();
    server.get("/v1/models");
    let response = server.get("/metrics");
    assert!(
        response
            .header("content-type")
            .unwrap()
            .contains("openmetrics-text")
    );
    let text = response.body;
    assert!(text.ends_with("# EOF\n"), "{text}");
    for name in [
        "voxtral_requests_total{path=\"/v1/models\",method=\"GET\",status=\"200\"} 1",
        "# TYPE voxtral_audio_seconds counter",
        "# TYPE voxtral_tokens counter",
        "# TYPE voxtral_queue gauge",
        "# TYPE voxtral_sessions gauge",
        "# TYPE voxtral_request_seconds histogram",
        "# TYPE voxtral_real_time_factor histogram",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

/// Whatever is described is there, and whatever is there is described.
#[test]
fn the_description_is_complete() {
    let server = Server::start();
    let description = server.get("/openapi.json").json();
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().unwrap();
    for (path, methods) in paths {
        let methods = methods.as_object().unwrap().keys();
        for method in methods.filter(|method| *method != "parameters") {
            let path = path.replace('{', "x").replace('}', "");
            let method = method.to_uppercase();
            let response = server.request(&method, &path, &[], b"");
            let missing = response.body.contains("path `") && response.status == 404;
            assert!(
                !missing && response.status != 405,
                "{method} {path}: {response:?}"
            );
        }
    }
    for path in [
        "/health",
        "/ready",
        "/metrics",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/audio/transcriptions",
        "/v1/audio/transcriptions/realtime",
        "/v1/chat/completions",
        "/v1/files",
        "/v1/files/{id}",
        "/v1/files/{id}/content",
        "/v1/realtime",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
}

#[test]
fn the_page_is_all_of_one_piece() {
    let server = Server::start();
    let response = server.get("/");
    assert_eq!(response.status, 200);
    assert!(
        response
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(
        response
            .header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
    for outside in ["src=\"http", "href=\"http", "@import", "cdn"] {
        assert!(!response.body.contains(outside), "{outside}");
    }
}
