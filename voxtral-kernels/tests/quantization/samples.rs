//! Weights of known distributions, of variance 1.

/// Of what a weight is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Distribution {
    /// Normal.
    Gaussian,
    /// Student's t with 4 degrees of freedom.
    StudentT,
    /// Laplace.
    Laplace,
    /// Normal, the deviation of a column the exponential of a normal number of deviation 0.4.
    Columns,
}

impl Distribution {
    pub(crate) const ALL: [Self; 4] =
        [Self::Gaussian, Self::StudentT, Self::Laplace, Self::Columns];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "Gaussian",
            Self::StudentT => "Student's t, 4",
            Self::Laplace => "Laplace",
            Self::Columns => "Gaussian, columns differ",
        }
    }

    /// `[rows, inputs]`.
    pub(crate) fn sample(self, rows: usize, inputs: usize, seed: u64) -> Vec<f32> {
        let mut random = Random(seed);
        let columns: Vec<f64> = (0..inputs).map(|_| (0.4 * random.normal()).exp()).collect();
        let mut draw = |i: usize| match self {
            Self::Gaussian => random.normal(),
            Self::StudentT => {
                let squares: f64 = (0..4).map(|_| random.normal().powi(2)).sum();
                random.normal() / (squares / 4.0).sqrt() / 2.0_f64.sqrt()
            }
            Self::Laplace => {
                let x = 2.0 * random.uniform() - 1.0;
                -x.signum() * (1.0 - x.abs()).ln() / 2.0_f64.sqrt()
            }
            // The mean of the squares of the deviations is exp(2 · 0.4²).
            Self::Columns => random.normal() * columns[i % inputs] / (0.16_f64).exp(),
        };
        (0..rows * inputs).map(|i| draw(i) as f32).collect()
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// By Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
