//! From a model's name to a local folder, through the shared Hugging Face cache.
//!
//! A model is named by a folder, by a short alias or by its name on the Hub; [`ModelSource`]
//! tells them apart. [`Hub`] turns the name into a folder that holds every file a loader needs,
//! fetching what the cache lacks:
//!
//! ```
//! use voxtral_hub::{HubBuilder, ModelSource};
//!
//! let source: ModelSource = "mini".parse()?;
//! assert_eq!(source.to_string(), "mistralai/Voxtral-Mini-3B-2507");
//!
//! # let folder = tempfile::tempdir()?;
//! # let cache = folder.path();
//! let hub = HubBuilder::new(cache).offline(true).build()?;
//! assert!(hub.cached().is_empty());
//!
//! // Offline, with nothing in the cache: the error says so.
//! let error = hub.resolve(&source, &mut |_| {}).unwrap_err();
//! assert!(error.to_string().contains("HF_HUB_OFFLINE"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With the network:
//!
//! ```no_run
//! use voxtral_hub::Hub;
//!
//! let hub = Hub::from_env()?;
//! let folder = hub.resolve(&"mini".parse()?, &mut |d| {
//!     eprintln!("{} ({} of {}): {} of {} bytes", d.file, d.file_index + 1, d.files, d.done, d.total);
//! })?;
//! # Ok::<(), voxtral_hub::HubError>(())
//! ```
//!
//! # What is fetched
//!
//! A repository often holds the weights twice, in the Hugging Face form and in Mistral's native
//! one. One of them is chosen, the Hugging Face form where it is whole, and only that one is
//! fetched:
//!
//! | form | files |
//! |---|---|
//! | Hugging Face | `config.json`, `tekken.json`, `generation_config.json`, `preprocessor_config.json` and `processor_config.json` where they exist, `model.safetensors.index.json` with the shards it names, or `model.safetensors` |
//! | native | `params.json`, `tekken.json`, `consolidated.safetensors` |
//!
//! If the cache holds one whole form already, that form is used whatever the other offers.
//!
//! # The cache
//!
//! The folder layout is the one that Hugging Face's own libraries share, so a model that another
//! program has fetched is not fetched again, and the other way round:
//!
//! ```text
//! models--org--name/refs/main                     the commit that the branch stood at
//! models--org--name/blobs/<etag>                  a complete file; <etag>.part while it is fetched
//! models--org--name/snapshots/<commit>/<file>     a link to the blob
//! .locks/models--org--name/<etag>.lock            held by the process that fetches the file
//! ```
//!
//! Invariants: a blob appears under its final name only when its length is the stated one and,
//! for weights, its SHA-256 is the stated one; a reference is written only when its snapshot is
//! whole. Ending the process at any moment therefore leaves a sound cache, and the next run
//! continues where it stopped.
//!
//! # Environment
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` | the cache folder |
//! | `HF_HOME` | the cache is its `hub` folder, the token its `token` file; `XDG_CACHE_HOME/huggingface` or `~/.cache/huggingface` if not set |
//! | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH` | the access token, or the file that holds it |
//! | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | send no token |
//! | `HF_ENDPOINT` | another server than `https://huggingface.co` |
//! | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | make no request at all |
//! | `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE` | the certificates to trust instead of the built-in ones (PEM) |
//! | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | the proxy, except for an endpoint on this machine |

#![forbid(unsafe_code)]

mod builder;
mod cache;
mod error;
mod files;
mod http;
mod hub;
mod source;
mod transfer;

pub use builder::HubBuilder;
pub use cache::CachedModel;
pub use error::HubError;
pub use hub::Hub;
pub use source::{ALIASES, Alias, ModelSource};
pub use transfer::Download;
