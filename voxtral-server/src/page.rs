//! `GET /`: one page that tries the server out, and `GET /openapi.json`.

use axum::{
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName},
    response::IntoResponse,
};

/// Nothing but the page itself and this server; the microphone's worklet is a blob of it.
const POLICY: &str = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline' blob:; frame-ancestors 'none'; base-uri 'none'; \
                      form-action 'none'";

/// The page.
pub(crate) async fn page() -> impl IntoResponse {
    let headers: [(HeaderName, &str); 3] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, include_str!("page.html"))
}

/// What there is to ask for, for programs.
pub(crate) async fn openapi() -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "application/json")];
    (headers, include_str!("openapi.json"))
}
