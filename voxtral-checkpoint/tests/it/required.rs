//! Every number that the layers need must be in the files: nothing falls back to one of ours.

use serde_json::Value;

use crate::configs::assert_fails;

#[test]
fn every_dimension_must_be_there() {
    for (fixture, file, parent, keys) in [
        (
            "offline/hf",
            "config.json",
            "",
            "model_type audio_config text_config",
        ),
        (
            "offline/hf",
            "config.json",
            "audio_config.",
            "hidden_size intermediate_size num_hidden_layers num_attention_heads num_mel_bins \
             max_source_positions activation_function",
        ),
        (
            "offline/hf",
            "config.json",
            "text_config.",
            "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads \
             num_key_value_heads head_dim hidden_act rms_norm_eps",
        ),
        (
            "offline/hf",
            "config.json",
            "text_config.rope_parameters.",
            "rope_theta",
        ),
        (
            "offline/hf",
            "preprocessor_config.json",
            "",
            "feature_size hop_length n_fft sampling_rate",
        ),
        ("realtime/hf", "config.json", "", "downsample_factor"),
        (
            "realtime/hf",
            "config.json",
            "audio_config.",
            "rms_norm_eps hidden_act",
        ),
        (
            "realtime/hf",
            "config.json",
            "audio_config.rope_parameters.",
            "rope_theta",
        ),
        (
            "realtime/hf",
            "preprocessor_config.json",
            "",
            "global_log_mel_max",
        ),
        (
            "offline/native",
            "params.json",
            "",
            "dim n_layers head_dim hidden_dim n_heads n_kv_heads rope_theta norm_eps vocab_size multimodal",
        ),
        (
            "offline/native",
            "params.json",
            "multimodal.",
            "whisper_model_args",
        ),
        (
            "offline/native",
            "params.json",
            "multimodal.whisper_model_args.downsample_args.",
            "downsample_factor",
        ),
        (
            "offline/native",
            "params.json",
            "multimodal.whisper_model_args.encoder_args.",
            "dim n_layers head_dim hidden_dim n_heads max_source_positions audio_encoding_args",
        ),
        (
            "offline/native",
            "params.json",
            "multimodal.whisper_model_args.encoder_args.audio_encoding_args.",
            "sampling_rate num_mel_bins hop_length window_size",
        ),
        (
            "realtime/native",
            "params.json",
            "",
            "ada_rms_norm_t_cond_dim",
        ),
        (
            "realtime/native",
            "params.json",
            "multimodal.whisper_model_args.encoder_args.",
            "rope_theta norm_eps",
        ),
    ] {
        for key in keys.split_whitespace() {
            let field = format!("{parent}{key}");
            let pointer = format!("/{}", field.replace('.', "/"));
            let expected = format!("`{file}` lacks the field `{field}`");
            assert_fails(fixture, file, &pointer, Value::Null, &expected);
        }
    }
}
