//! Shares and noise without luck.
//!
//! A demo whose error rate hangs on dice fails on the one day that matters: at 20 requests a second and a window of
//! five seconds, "one in a hundred" is now and then three. Shares are therefore spread evenly ([`Spread`]), and noise
//! ([`Noise`]) comes from a seed and only shapes durations and scores. Nothing here reads a clock.

/// Says yes to exactly the asked share of calls, as evenly as whole calls allow.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    owed: f64,
}

impl Spread {
    /// Whether this call belongs to `share` (0 to 1) of them. The share may change from call to call.
    pub(crate) fn hit(&mut self, share: f64) -> bool {
        self.owed += share.clamp(0.0, 1.0);
        let hit = self.owed >= 1.0 - f64::EPSILON * 8.0;
        if hit {
            self.owed -= 1.0;
        }
        hit
    }

    /// How many whole units have come due after adding `amount`; the fraction is carried over.
    pub(crate) fn due(&mut self, amount: f64) -> u64 {
        self.owed += amount.max(0.0);
        let whole = self.owed.floor();
        self.owed -= whole;
        whole as u64
    }
}

/// A small seeded generator (SplitMix64): reproducible, and good enough to shape a histogram.
#[derive(Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A duration around `typical`: mostly a little below or above it, with a tail to one and a half of it. Its 95th
    /// percentile is 1.39 times `typical`, so a multiplied duration multiplies every percentile.
    pub(crate) fn duration(&mut self, typical: f64) -> f64 {
        typical * (0.7 + 0.8 * self.unit().powi(3))
    }

    /// A score around `centre`, at most `swing` away from it.
    pub(crate) fn around(&mut self, centre: f64, swing: f64) -> f64 {
        centre + swing * (2.0 * self.unit() - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_met_exactly_and_never_in_bursts() {
        for (share, calls, hits) in [(0.0, 1000, 0), (0.05, 1000, 50), (0.3, 1000, 300), (1.0, 1000, 1000)] {
            let mut spread = Spread::default();
            let got = (0..calls).filter(|_| spread.hit(share)).count();
            assert!(got.abs_diff(hits) <= 1, "share {share}: {got} of {calls}, wanted {hits}");
        }
        let mut spread = Spread::default();
        let run: Vec<bool> = (0..40).map(|_| spread.hit(0.1)).collect();
        for window in run.windows(10) {
            assert!(window.iter().filter(|hit| **hit).count() <= 2);
        }
    }

    #[test]
    fn amounts_carry_their_fraction() {
        let mut spread = Spread::default();
        let total: u64 = (0..100).map(|_| spread.due(0.25)).sum();
        assert_eq!(total, 25);
    }

    #[test]
    fn the_seed_alone_decides_the_noise() {
        let draw = |seed| {
            let mut noise = Noise::new(seed);
            (0..100).map(|_| noise.duration(0.1)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|d| (0.07..0.15).contains(d)));
    }
}
