//! The Realtime model by its formulas, in `f64`, with absolute positions and without a cache:
//! slow and plain, for streams that no other implementation follows so far.

use voxtral_checkpoint::{
    Checkpoint,
    config::{AttentionConfig, Mask, ModelConfig, Norm, Position},
};

/// Rows of numbers: positions × width.
pub(crate) type Rows = Vec<Vec<f64>>;

pub(crate) struct Reference<'c> {
    checkpoint: &'c Checkpoint,
    config: &'c ModelConfig,
}

impl<'c> Reference<'c> {
    pub(crate) fn new(checkpoint: &'c Checkpoint) -> Self {
        Self {
            checkpoint,
            config: checkpoint.config(),
        }
    }

    /// A tensor's values, row after row.
    fn tensor(&self, name: &str) -> Vec<f64> {
        let shape = self.checkpoint.info(name).unwrap().shape;
        let tensor = self.checkpoint.tensor(name, &shape).unwrap();
        tensor.to_f32().into_iter().map(f64::from).collect()
    }

    fn linear(&self, x: &Rows, name: &str, bias: bool) -> Rows {
        let weight = self.tensor(&format!("{name}.weight"));
        let bias = bias.then(|| self.tensor(&format!("{name}.bias")));
        let width = x[0].len();
        x.iter()
            .map(|row| {
                let products = weight.chunks(width).enumerate();
                products
                    .map(|(i, w)| dot(row, w) + bias.as_ref().map_or(0.0, |bias| bias[i]))
                    .collect()
            })
            .collect()
    }

    fn rms_norm(&self, x: &Rows, name: &str, eps: f64) -> Rows {
        let gain = self.tensor(&format!("{name}.weight"));
        x.iter()
            .map(|row| {
                let scale = 1.0 / (dot(row, row) / row.len() as f64 + eps).sqrt();
                row.iter().zip(&gain).map(|(x, g)| x * scale * g).collect()
            })
            .collect()
    }

    /// `[mel frames, bins]` → encoder frames.
    pub(crate) fn encode(&self, mel: &Rows) -> Rows {
        let config = &self.config.encoder;
        let (Norm::Rms { eps }, Position::Rope { theta }, Mask::SlidingWindow(window)) =
            (config.norm, config.position, config.mask)
        else {
            panic!("a Realtime encoder")
        };
        let mut h = self.conv(mel, "encoder.conv1", 1);
        h = self.conv(&h, "encoder.conv2", 2);
        for i in 0..config.num_layers {
            let name = format!("encoder.layers.{i}");
            let x = self.rms_norm(&h, &format!("{name}.attention_norm"), eps);
            let y = self.attention(&x, &name, config.attention, theta, window.get(), true);
            h = add(&h, &y);
            let x = self.rms_norm(&h, &format!("{name}.mlp_norm"), eps);
            h = add(&h, &self.swiglu(&x, &name, true));
        }
        self.rms_norm(&h, "encoder.norm", eps)
    }

    /// A causal convolution of kernel 3, and GELU.
    fn conv(&self, x: &Rows, name: &str, stride: usize) -> Rows {
        let weight = self.tensor(&format!("{name}.weight"));
        let bias = self.tensor(&format!("{name}.bias"));
        let width = x[0].len();
        let padding = 3 - stride;
        (0..(x.len() + padding - 3) / stride + 1)
            .map(|t| {
                let kernels = weight.chunks(3 * width).zip(&bias);
                kernels
                    .map(|(kernel, bias)| {
                        let taps = (0..3).filter_map(|k| {
                            let row = x.get((t * stride + k).checked_sub(padding)?)?;
                            Some((0..width).map(|c| row[c] * kernel[c * 3 + k]).sum::<f64>())
                        });
                        gelu(bias + taps.sum::<f64>())
                    })
                    .collect()
            })
            .collect()
    }

    /// Encoder frames → audio embeddings.
    pub(crate) fn project(&self, h: &Rows) -> Rows {
        let stacked: Rows = h
            .chunks(self.config.projector.downsample.get())
            .map(<[Vec<f64>]>::concat)
            .collect();
        let inner = self.linear(&stacked, "projector.linear1", false);
        let inner = inner
            .iter()
            .map(|row| row.iter().copied().map(gelu).collect());
        self.linear(&inner.collect(), "projector.linear2", false)
    }

    /// The scores of every entry of the vocabulary, at every position.
    pub(crate) fn logits(&self, audio: &Rows, ids: &[u32], delay: usize) -> Rows {
        let config = &self.config.decoder;
        let Mask::SlidingWindow(window) = config.mask else {
            panic!("a Realtime decoder")
        };
        let (width, eps) = (config.hidden_size, config.norm_eps);
        let table = self.tensor("decoder.embedding.weight");
        let tokens: Rows = ids
            .iter()
            .map(|&id| table[id as usize * width..][..width].to_vec())
            .collect();
        let mut h = add(audio, &tokens);
        for i in 0..config.num_layers {
            let name = format!("decoder.layers.{i}");
            let x = self.rms_norm(&h, &format!("{name}.attention_norm"), eps);
            let (heads, theta) = (config.attention, config.rope_theta);
            h = add(
                &h,
                &self.attention(&x, &name, heads, theta, window.get(), false),
            );
            let x = self.rms_norm(&h, &format!("{name}.mlp_norm"), eps);
            let shift = self.ada(&name, delay, width);
            let scaled =
                |row: &Vec<f64>| row.iter().zip(&shift).map(|(x, s)| x * (1.0 + s)).collect();
            h = add(
                &h,
                &self.swiglu(&x.iter().map(scaled).collect(), &name, false),
            );
        }
        let h = self.rms_norm(&h, "decoder.norm", eps);
        h.iter()
            .map(|row| table.chunks(width).map(|entry| dot(row, entry)).collect())
            .collect()
    }

    fn ada(&self, name: &str, delay: usize, width: usize) -> Vec<f64> {
        let half = width / 2;
        let angle = |i: usize| delay as f64 * (-(10_000_f64.ln()) * i as f64 / half as f64).exp();
        let cos = (0..half).map(|i| angle(i).cos());
        let condition = cos.chain((0..half).map(|i| angle(i).sin())).collect();
        let inner = self.linear(&vec![condition], &format!("{name}.ada_norm.down"), false);
        let inner = vec![inner[0].iter().copied().map(gelu).collect()];
        self.linear(&inner, &format!("{name}.ada_norm.up"), false)[0].clone()
    }

    fn swiglu(&self, x: &Rows, name: &str, bias: bool) -> Rows {
        let gate = self.linear(x, &format!("{name}.mlp.gate"), false);
        let up = self.linear(x, &format!("{name}.mlp.up"), false);
        let gated = gate.iter().zip(&up).map(|(gate, up)| {
            let pairs = gate.iter().zip(up);
            pairs.map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
        });
        self.linear(&gated.collect(), &format!("{name}.mlp.down"), bias)
    }

    fn attention(
        &self,
        x: &Rows,
        name: &str,
        heads: AttentionConfig,
        theta: f64,
        window: usize,
        bias: bool,
    ) -> Rows {
        let part = |part: &str, bias| self.linear(x, &format!("{name}.attention.{part}"), bias);
        let d = heads.head_dim;
        let (mut q, mut k, v) = (part("wq", bias), part("wk", false), part("wv", bias));
        for rows in [&mut q, &mut k] {
            for (position, row) in rows.iter_mut().enumerate() {
                row.chunks_mut(d)
                    .for_each(|head| rotate(head, position, theta));
            }
        }
        let group = heads.num_heads / heads.num_kv_heads;
        let y: Rows = (0..x.len())
            .map(|i| {
                let seen = (i + 1).saturating_sub(window)..i + 1;
                (0..heads.num_heads)
                    .flat_map(|head| {
                        let (own, kv) = (head * d..head * d + d, head / group * d);
                        let scores: Vec<f64> = seen
                            .clone()
                            .map(|j| dot(&q[i][own.clone()], &k[j][kv..kv + d]) / (d as f64).sqrt())
                            .collect();
                        let most = scores.iter().copied().fold(f64::MIN, f64::max);
                        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
                        let total: f64 = weights.iter().sum();
                        let (seen, v) = (seen.clone(), &v);
                        (0..d)
                            .map(move |c| {
                                let values = seen.clone().zip(&weights);
                                values.map(|(j, w)| w / total * v[j][kv + c]).sum::<f64>()
                            })
                            .collect::<Vec<_>>()
                    })
                    .collect()
            })
            .collect();
        self.linear(&y, &format!("{name}.attention.wo"), bias)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add(a: &Rows, b: &Rows) -> Rows {
    let rows = a.iter().zip(b);
    rows.map(|(a, b)| a.iter().zip(b).map(|(x, y)| x + y).collect())
        .collect()
}

/// Split-half rotary embedding of a head.
fn rotate(head: &mut [f64], position: usize, theta: f64) {
    let half = head.len() / 2;
    for j in 0..half {
        let angle = position as f64 * theta.powf(-2.0 * j as f64 / head.len() as f64);
        let (sin, cos) = angle.sin_cos();
        let (a, b) = (head[j], head[j + half]);
        head[j] = a * cos - b * sin;
        head[j + half] = b * cos + a * sin;
    }
}

/// `½ x (1 + erf(x / √2))`, erf by its series below 3 and its continued fraction above.
fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

fn erf(x: f64) -> f64 {
    let z = x.abs();
    let value = if z < 3.0 {
        // 2/√π Σ (−1)ⁿ z^(2n+1) / (n! (2n+1)), (Abramowitz & Stegun, 7.1.5)
        let mut term = z;
        let mut sum = z;
        for n in 1..100 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        // 1 − e^(−z²)/√π · 1/(z + (1/2)/(z + 1/(z + (3/2)/(z + …)))), (7.1.14)
        let tail = (1..60)
            .rev()
            .fold(z, |rest, n| z + f64::from(n) / 2.0 / rest);
        1.0 - (-z * z).exp() / (std::f64::consts::PI.sqrt() * tail)
    };
    value.copysign(x)
}

#[test]
fn erf_has_its_tabled_values() {
    for (x, value) in [
        (0.5, 0.520_499_877_813_046_5),
        (-2.0, -0.995_322_265_018_952_7),
        (3.5, 0.999_999_256_901_627_7),
    ] {
        assert!((erf(x) - value).abs() < 1e-14, "{x}");
    }
}
