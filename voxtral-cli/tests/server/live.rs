//! Live sessions over WebSockets: `/v1/realtime` as vLLM and OpenAI speak it,
//! `/v1/audio/transcriptions/realtime` as Mistral does.

mod bad;
mod client;
mod dialects;
mod ends;
