//! From the score that is asked for to each codec's own number, without a look at the outcome: the first answer has no time
//! for one.
//!
//! At [`USUAL`] a codec gets the number that comes to that score on most pictures of its kind, which depends on their size. The
//! table says how the numbers for other scores lie to it: they are what came to these scores in the median of some forty
//! pictures of 24 to 128 pixels a side, brought to the same usual number. Between two columns it is interpolated.

use super::colours::Content;

/// The score that all usual numbers are for.
const USUAL: f64 = 80.0;

/// The score that is aimed at, 0 to 100, on the scale of photographs: flat pictures reach 10 more by it. 100 asks for the
/// very pixels.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub(in crate::render) struct Aim(f64);

/// The columns of the table.
const SCORES: [f64; 10] = [0.0, 30.0, 50.0, 60.0, 70.0, USUAL, 85.0, 90.0, 95.0, 100.0];

/// A row of the table. Up to the usual score its entries are shares of the usual number; above, they are shares of what lies
/// between that and the end of the scale, which is left at 100.
type Row = [f64; SCORES.len()];

/// Lossy WebP, and the frames of an animation. 95 is more than it can reach.
pub(super) const LOSSY: Row = [0.01, 0.04, 0.1, 0.22, 0.5, 1.0, 0.6, 0.21, 0.04, 0.0];
/// The same with an eye to the colour planes (`sharp_yuv`).
pub(super) const SHARP: Row = [0.01, 0.04, 0.1, 0.22, 0.49, 1.0, 0.65, 0.31, 0.1, 0.0];
/// JPEG with halved colour planes, which cannot reach 95 either, and with whole ones.
pub(super) const JPEG_HALVED: Row = [0.06, 0.12, 0.22, 0.34, 0.58, 1.0, 0.51, 0.23, 0.05, 0.0];
pub(super) const JPEG_WHOLE: Row = [0.06, 0.115, 0.2, 0.31, 0.53, 1.0, 0.6, 0.31, 0.1, 0.0];
/// AVIF.
pub(super) const AVIF: Row = [0.2, 0.64, 0.77, 0.835, 0.915, 1.0, 0.78, 0.45, 0.17, 0.0];

/// Palettes, by how many times the usual distance from the original they may be: of letters, drawings, and photographs.
const LETTER_PALETTE: Row = [40.0, 30.0, 20.0, 12.0, 5.0, 1.0, 0.1, 0.05, 0.02, 0.0];
const DRAWING_PALETTE: Row = [15.0, 9.0, 5.4, 3.6, 2.3, 1.0, 0.55, 0.19, 0.03, 0.0];
const PHOTO_PALETTE: Row = [25.0, 11.0, 5.6, 3.7, 2.1, 1.0, 0.55, 0.24, 0.045, 0.0];

impl Aim {
    /// At this score of photographs.
    pub(in crate::render) const fn at(score: f64) -> Self {
        Self(score.clamp(0.0, 100.0))
    }

    /// Whether every pixel is to be kept.
    pub(super) fn is_exact(self) -> bool {
        self.0 >= 100.0
    }

    /// A quality from 0 to 100, where `usual` is the one for the usual score.
    pub(super) fn quality(self, usual: f64, row: &Row) -> f64 {
        let share = self.entry(row);
        if self.0 <= USUAL { usual * share } else { 100.0 - (100.0 - usual) * share }
    }

    /// The mean of squared distances that a palette may be off, where `usual` is the one for the usual score.
    pub(super) fn tolerance(self, usual: f64, content: Content) -> f64 {
        usual
            * self.entry(match content {
                Content::Letter => &LETTER_PALETTE,
                Content::Drawing => &DRAWING_PALETTE,
                Content::Photo => &PHOTO_PALETTE,
            })
    }

    fn entry(self, row: &Row) -> f64 {
        let next = SCORES.partition_point(|&score| score < self.0).clamp(1, SCORES.len() - 1);
        let share = (SCORES[next] - self.0) / (SCORES[next] - SCORES[next - 1]);
        // So, and not from below, it is exact at the columns.
        row[next] + (row[next - 1] - row[next]) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUALITIES: [&Row; 5] = [&LOSSY, &SHARP, &JPEG_HALVED, &JPEG_WHOLE, &AVIF];
    const CONTENTS: [Content; 3] = [Content::Letter, Content::Drawing, Content::Photo];

    #[test]
    fn at_the_usual_score_every_number_is_the_usual_one_and_at_100_nothing_is_lost() {
        for usual in [74.0, 75.0, 77.0, 78.0, 79.0, 80.0, 81.0, 84.0] {
            for row in QUALITIES {
                let at = |score| Aim::at(score).quality(usual, row).to_bits();
                assert_eq!(
                    (at(USUAL), at(100.0), at(999.0)),
                    (f64::to_bits(usual), 100_f64.to_bits(), 100_f64.to_bits())
                );
            }
        }
        for content in CONTENTS {
            let at = |score| Aim::at(score).tolerance(24.0, content).to_bits();
            assert_eq!((at(USUAL), at(100.0)), (24_f64.to_bits(), 0_f64.to_bits()), "{content:?}");
        }
        assert!(Aim::at(100.0).is_exact() && !Aim::at(99.5).is_exact());
    }

    proptest! {
        #[test]
        fn a_higher_score_takes_a_finer_number(low in 0.0..100.0, more in 0.01..40.0, usual in 60.0..90.0) {
            let (low, high) = (Aim::at(low), Aim::at(low + more));
            prop_assume!(low < high);
            for row in QUALITIES {
                let (coarse, fine) = (low.quality(usual, row), high.quality(usual, row));
                prop_assert!(coarse < fine && (0.0..=100.0).contains(&coarse) && fine <= 100.0, "{coarse} {fine}");
            }
            for content in CONTENTS {
                let (coarse, fine) = (low.tolerance(usual, content), high.tolerance(usual, content));
                prop_assert!(coarse > fine && fine >= 0.0, "{content:?}: {coarse} {fine}");
            }
        }
    }
}
