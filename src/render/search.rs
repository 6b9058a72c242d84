//! The fewest bytes that still look the same: candidates are encoded and scored, and the smallest that reaches the target
//! is taken.
//!
//! A candidate is a step of a family of encodings. Each family is searched for its coarsest step that passes by a few
//! tries, between which the score is interpolated. What is longer than something that passed is not even looked at: so
//! the first family costs most, and the others little. Nothing here depends on time or on other pictures, so that equal
//! pictures get equal bytes.

mod family;

use super::encode::aim::Aim;
use super::encode::colours::Content;
use super::encode::jpeg::Planes;
use super::encode::kmeans::Emphasis;
use super::encode::palette::Counted;
use super::encode::png::{self, Packing};
use super::encode::webp::{self, Lossy};
use super::encode::{self, avif::Effort};
use super::raster::Raster;
use super::score::Judge;
use super::{EncodeError, Targets};
use crate::variant::{Format, Offer, Plain, Recipe};
use family::Family;
use std::time::{Duration, Instant};

/// What is asked more of a palette than of other encodings, but for letters: SSIMULACRA2 is a little kind to flat areas
/// where there were none.
const PALETTE_MARGIN: f64 = 2.0;

/// A try that misses the target by less is no proof that a coarser one does: on small pictures scores go up and down.
const NEARLY: f64 = 0.6;

/// From this target on only an encoding without loss is sure to reach it.
const LOSSLESS_TARGET: f64 = 98.0;

/// Up to this many pixels a palette of a photograph can undercut a lossy encoding; and above, that of a drawing that was
/// taken for a photograph, which shows at `FEW_COLOURS`.
const PALETTE_PHOTO_PIXELS: usize = 40 * 40;
const FEW_COLOURS: u8 = 24;

/// Where the search of a palette begins for a letter.
const LETTER_COLOURS: u8 = 10;
/// What is looked at too where so many do not pass.
const FEWER_LETTER_COLOURS: [u8; 3] = [3, 4, 5];

/// From this many pixels on segments with a quantiser of their own can be worth their header.
const SEGMENTS_PIXELS: usize = 44 * 44;

/// What a lossy encoding of a flat picture hardly undercuts, in bytes for each pixel along its edge.
const FEW_BYTES_AN_EDGE: usize = 6;

/// The quantiser that comes to 80 on most photographs.
const USUAL_QUANTISER: usize = 22;

/// How often the care that costs most is taken for AVIF.
const AVIF_TRIES: usize = 4;

/// What packing tightly may save of a PNG, as a part of its bytes, and how many of the shortest are worth it.
const PACKING_SAVES: usize = 16;
const PACKED_TRIES: usize = 3;

/// By which factor a lossless WebP may undercut what is estimated of it.
const LOSSLESS_SAVES: usize = 2;

/// Tries in the first family of a kind, and in each that follows.
const FIRST_TRIES: usize = 8;
const MORE_TRIES: usize = 5;

/// What was tried for a picture.
pub(super) struct Tries {
    pub(super) all: Vec<Try>,
    /// The smallest that passes; the most alike where none does.
    pub(super) best: usize,
    passes: bool,
}

/// A file that was made, and what was found of it.
pub(super) struct Try {
    pub(super) made: Made,
    pub(super) format: Format,
    pub(super) file: Vec<u8>,
    /// `None` when nobody looked: it is longer than something that passes, or the picture is too large.
    pub(super) score: Option<f64>,
    /// For encoding and scoring.
    pub(super) took: Duration,
}

/// How a file was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Made {
    /// By the fixed settings of the first answer.
    First,
    /// Without loss.
    Exact,
    /// As a step of a family.
    By(Family, usize),
}

impl Made {
    /// In words, for people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::First => "fixed settings".to_owned(),
            Self::Exact => "without loss".to_owned(),
            Self::By(family, step) => family.describe(*step),
        }
    }
}

/// Why a search ended before its end.
enum Stop {
    Cancelled,
    Refused(EncodeError),
}

impl From<EncodeError> for Stop {
    fn from(error: EncodeError) -> Self {
        Self::Refused(error)
    }
}

/// Searches for `raster`, which shows `content`, as `recipe` asks, beginning with the first answer; `None` when `go_on`
/// said no. A picture that is too large to be judged keeps its first answer.
///
/// # Errors
/// When an encoder refuses.
pub(super) fn search(
    raster: &Raster,
    content: Content,
    recipe: &Recipe,
    targets: &Targets,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Tries>, EncodeError> {
    let flattened = encode::flattened(raster, recipe);
    let (raster, content) = flattened.as_ref().map_or((raster, content), |flat| (flat, Content::of(flat)));
    let tries = Tries { all: Vec::new(), best: 0, passes: false };
    let aim = targets.aim(content, recipe.quality);
    let Some(judge) = Judge::of(raster) else {
        return Ok(Some(tries.unjudged(raster, content, recipe, aim)?));
    };
    let (target, counted) = (targets.of(content, recipe.quality), Counted::of(raster));
    let mut search = Search { raster, content, target, aim, judge, counted, tries, go_on };
    match search.run(recipe) {
        Ok(()) => Ok(Some(search.tries)),
        Err(Stop::Cancelled) => Ok(None),
        Err(Stop::Refused(error)) => Err(error),
    }
}

impl Tries {
    fn best(&self) -> &Try {
        &self.all[self.best]
    }

    fn unjudged(mut self, raster: &Raster, content: Content, recipe: &Recipe, aim: Aim) -> Result<Self, EncodeError> {
        let started = Instant::now();
        let (format, file) = encode::encode(raster, content, recipe, aim)?;
        self.all.push(Try { made: Made::First, format, file, score: None, took: started.elapsed() });
        Ok(self)
    }
}

struct Search<'a> {
    raster: &'a Raster,
    content: Content,
    target: f64,
    /// What the first answer aims at.
    aim: Aim,
    judge: Judge,
    counted: Counted,
    tries: Tries,
    go_on: &'a dyn Fn() -> bool,
}

/// What came of a try: by how much it passed or failed, or which share of its bytes is too many.
#[derive(Clone, Copy)]
enum Verdict {
    Passed(f64),
    Failed(f64),
    TooLong(f64),
}

impl Search<'_> {
    fn run(&mut self, recipe: &Recipe) -> Result<(), Stop> {
        let content = self.content;
        let aim = self.aim;
        self.attempt(Made::First, |raster, _| encode::first(raster, content, recipe, aim))?;
        match recipe.offer {
            Offer::Webp | Offer::Only(Format::Webp) | Offer::Moving => self.webp(),
            Offer::Avif => {
                self.webp()?;
                self.avif_beside()
            }
            Offer::AvifBeside(plain) => {
                self.plain(plain)?;
                self.avif_beside()?;
                self.exact_png(plain)
            }
            // Nothing is without loss here either.
            Offer::Only(Format::Avif) => self.avif(),
            Offer::Basic => {
                self.plain(Plain::Both)?;
                self.exact_png(Plain::Both)
            }
            Offer::Only(Format::Png) => {
                self.plain(Plain::Png)?;
                self.exact_png(Plain::Png)
            }
            Offer::Only(Format::Jpeg) => self.plain(Plain::Jpeg),
        }
    }

    fn webp(&mut self) -> Result<(), Stop> {
        self.best_of(Family::WebpPalette, Self::lossy)?;
        self.lossless()
    }

    /// What every client shows, or this one.
    fn plain(&mut self, plain: Plain) -> Result<(), Stop> {
        match plain {
            Plain::Both if !self.raster.has_alpha() => self.best_of(png_palette, Self::jpeg)?,
            Plain::Both | Plain::Png => self.palettes(png_palette)?,
            Plain::Jpeg => return self.jpeg(),
        }
        self.pack()
    }

    /// Every pixel in PNG, where nothing else looks enough alike. Nothing is without loss in JPEG: there the most alike will
    /// have to do.
    fn exact_png(&mut self, plain: Plain) -> Result<(), Stop> {
        if !self.tries.passes && plain != Plain::Jpeg {
            self.attempt(Made::Exact, |raster, _| Ok((Format::Png, png::exact(raster)?, None)))?;
        }
        Ok(())
    }

    /// Every pixel in WebP: where nothing else looks enough alike, and where that may be the shortest. Smooth slopes are so,
    /// of more colours than a palette holds.
    fn lossless(&mut self) -> Result<(), Stop> {
        let most = LOSSLESS_SAVES * self.tries.best().file.len();
        if self.tries.passes && webp::lossless_estimate(self.raster) > most {
            return Ok(());
        }
        self.attempt(Made::Exact, |raster, _| Ok((Format::Webp, webp::lossless(raster)?, None)))?;
        Ok(())
    }

    /// Palettes and lossy encodings, first what probably wins.
    fn best_of(
        &mut self,
        palette: fn(Emphasis) -> Family,
        lossy: fn(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        if self.content != Content::Photo {
            self.palettes(palette)?;
        }
        let flat = self.content == Content::Letter
            && self.tries.passes
            && self.tries.best().file.len() <= FEW_BYTES_AN_EDGE * self.raster.len().isqrt();
        if !flat && self.target < LOSSLESS_TARGET {
            lossy(self)?;
        }
        if self.content == Content::Photo {
            self.palettes(palette)?;
        }
        Ok(())
    }

    /// Lossy WebP: the settings with the least header first, then those that look after colours, then segments.
    fn lossy(&mut self) -> Result<(), Stop> {
        // What libwebp does to alpha at best quality takes a hundred times longer, for bytes that are not seen.
        let alpha_quality = if self.raster.has_alpha() { 50 } else { 100 };
        let plain = Lossy { alpha_quality, ..Lossy::PLAIN };
        let sharp = Lossy { sharp_yuv: true, ..plain };
        let mut step = self.descend(Family::Lossy(plain), USUAL_QUANTISER, FIRST_TRIES)?;
        step = self.descend(Family::Lossy(sharp), step, MORE_TRIES)?;
        self.descend(Family::Lossy(Lossy { sns_strength: 100, ..plain }), step, MORE_TRIES)?;
        if self.raster.len() >= SEGMENTS_PIXELS {
            let segments = Lossy { segments: 4, sns_strength: 50, ..plain };
            step = self.descend(Family::Lossy(segments), 2 * step, MORE_TRIES)?;
            self.descend(Family::Lossy(Lossy { sharp_yuv: true, ..segments }), step, MORE_TRIES)?;
        }
        self.nudge()?;
        if self.raster.has_alpha() && !self.tries.passes {
            self.descend(Family::Lossy(Lossy { alpha_quality: 100, method: 4, ..sharp }), step, MORE_TRIES)?;
        }
        Ok(())
    }

    /// One step coarser than the best so far, with other filters at the edges of blocks: what hardly failed may pass.
    fn nudge(&mut self) -> Result<(), Stop> {
        for (sharpness, strength) in [(7, 60), (3, 60), (0, 0), (0, 25)] {
            let Made::By(Family::Lossy(settings), step) = self.tries.best().made else {
                break;
            };
            let other = Lossy { filter_sharpness: sharpness, filter_strength: strength, ..settings };
            self.descend(Family::Lossy(other), step + 1, 1)?;
        }
        Ok(())
    }

    /// AVIF where it can be made; what was found before it is good without.
    fn avif_beside(&mut self) -> Result<(), Stop> {
        match self.avif() {
            Err(Stop::Refused(_)) if self.tries.passes => Ok(()),
            ended => ended,
        }
    }

    /// AVIF, quickly at first, and with all care where that may be the smallest.
    fn avif(&mut self) -> Result<(), Stop> {
        let before = self.tries.all.len();
        let step = self.descend(Family::Avif(Effort::Quick), Family::USUAL_AVIF, MORE_TRIES)?;
        let best = self.tries.best().file.len();
        let quick = self.tries.all[before..].iter().map(|tried| tried.file.len()).min().unwrap_or(best);
        // That is what care may win; where the best is of AVIF already, it always may.
        if quick <= best + best / 8 {
            self.descend(Family::Avif(Effort::Thorough), step, AVIF_TRIES)?;
        }
        Ok(())
    }

    fn jpeg(&mut self) -> Result<(), Stop> {
        let step = self.descend(Family::Jpeg(Planes::Halved), 20, FIRST_TRIES)?;
        self.descend(Family::Jpeg(Planes::Whole), step, MORE_TRIES)?;
        Ok(())
    }

    /// The shortest PNG of palettes once more, packed as tightly as can be.
    fn pack(&mut self) -> Result<(), Stop> {
        if !self.tries.passes {
            return Ok(());
        }
        let best = self.tries.best().file.len();
        let asked = self.asked(true);
        let mut near: Vec<_> = self
            .tries
            .all
            .iter()
            .filter(|tried| {
                tried.file.len() <= best + best / PACKING_SAVES && tried.score.is_none_or(|score| score >= asked)
            })
            .filter_map(|tried| match tried.made {
                Made::By(Family::PngPalette(emphasis, Packing::Quick), step) => Some((&tried.file, emphasis, step)),
                _ => None,
            })
            .collect();
        near.sort_by_key(|(file, ..)| file.len());
        near.dedup_by_key(|(file, ..)| *file);
        let near: Vec<_> = near.into_iter().take(PACKED_TRIES).map(|(_, emphasis, step)| (emphasis, step)).collect();
        for (emphasis, step) in near {
            self.step(Family::PngPalette(emphasis, Packing::Thorough), step)?;
        }
        Ok(())
    }

    fn palettes(&mut self, of: fn(Emphasis) -> Family) -> Result<(), Stop> {
        let families = Emphasis::ALL.map(of);
        let colours = if self.content == Content::Letter { LETTER_COLOURS } else { FEW_COLOURS };
        let mut step = Family::step_of_colours(colours);
        if self.content == Content::Photo && self.raster.len() > PALETTE_PHOTO_PIXELS {
            // When so few colours are too long already, there is no hope for as many as it takes.
            if matches!(self.step(families[0], step)?, Verdict::TooLong(_)) {
                return Ok(());
            }
        }
        let start = step;
        let mut tries = FIRST_TRIES;
        for family in families {
            step = self.descend(family, step, tries)?;
            tries = MORE_TRIES;
        }
        // Where the first step failed, finer ones were looked at only; but the blends at the edges of a letter may look more alike
        // in fewer colours.
        let (started, asked) = (Made::By(families[0], start), self.asked(true));
        let failed =
            self.tries.all.iter().any(|tried| tried.made == started && tried.score.is_some_and(|score| score < asked));
        if self.content == Content::Letter && failed {
            for colours in FEWER_LETTER_COLOURS {
                for family in families {
                    self.step(family, Family::step_of_colours(colours))?;
                }
            }
        }
        Ok(())
    }

    /// Looks for the coarsest step of `family` that passes, by at most `tries` and one more, and gives about where it is.
    fn descend(&mut self, family: Family, start: usize, tries: usize) -> Result<usize, Stop> {
        let coarsest = family.coarsest();
        let mut step = start.min(coarsest);
        let (mut fine, mut coarse) = (None, None);
        for _ in 0..tries {
            match self.step(family, step)? {
                Verdict::Failed(by) => coarse = Some((step, by)),
                better => fine = Some((step, better)),
            }
            match between(&family, fine, coarse).map(|next| next.min(coarsest)) {
                Some(next) if next != step => step = next,
                _ => break,
            }
        }
        if let Some((failed, by)) = coarse
            && by < NEARLY
            && failed < coarsest
            && tries > 1
            && !self.tries.all.iter().any(|tried| tried.made == Made::By(family, failed + 1))
        {
            self.step(family, failed + 1)?;
        }
        Ok(fine.map_or(step, |(step, _)| step))
    }

    /// The score that a palette, or another encoding, has to reach.
    fn asked(&self, palette: bool) -> f64 {
        let margin = if palette && self.content != Content::Letter { PALETTE_MARGIN } else { 0.0 };
        (self.target + margin).min(100.0)
    }

    fn step(&mut self, family: Family, step: usize) -> Result<Verdict, Stop> {
        self.attempt(Made::By(family, step), |raster, counted| {
            let (file, seen) = family.encode(raster, counted, step)?;
            Ok((family.format(), file, seen))
        })
    }

    fn attempt(
        &mut self,
        made: Made,
        encode: impl FnOnce(&Raster, &Counted) -> Result<(Format, Vec<u8>, Option<Raster>), EncodeError>,
    ) -> Result<Verdict, Stop> {
        if !(self.go_on)() {
            return Err(Stop::Cancelled);
        }
        let started = Instant::now();
        let (format, file, seen) = encode(self.raster, &self.counted)?;
        let best = self.tries.all.get(self.tries.best);
        #[expect(clippy::cast_precision_loss, reason = "files are far below 2^52 bytes")]
        let ratio = best.map_or(0.0, |best| file.len() as f64 / best.file.len() as f64);
        if self.tries.passes && ratio >= 1.0 {
            self.tries.all.push(Try { made, format, file, score: None, took: started.elapsed() });
            return Ok(Verdict::TooLong(ratio));
        }
        let seen = seen.map_or_else(|| encode::seen(format, &file, self.raster), Ok)?;
        let score = self.judge.score(&seen);
        let palette = match made {
            // It does not tell, but lossy WebP is what drawings hardly ever get.
            Made::First => format == Format::Png || format == Format::Webp && self.content == Content::Drawing,
            Made::Exact => false,
            Made::By(family, _) => family.is_palette(),
        };
        let asked = self.asked(palette);
        let passes = score >= asked || made == Made::Exact;
        if passes || !self.tries.passes && best.is_none_or(|best| best.score < Some(score)) {
            self.tries.best = self.tries.all.len();
            self.tries.passes = passes;
        }
        self.tries.all.push(Try { made, format, file, score: Some(score), took: started.elapsed() });
        Ok(if passes { Verdict::Passed(score - asked) } else { Verdict::Failed(asked - score) })
    }
}

const fn png_palette(emphasis: Emphasis) -> Family {
    Family::PngPalette(emphasis, Packing::Quick)
}

/// The step to try next; `None` when there is nothing between what is too fine and what is too coarse.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "steps are below 256, and a wild estimate is brought between the limits"
)]
fn between(family: &Family, fine: Option<(usize, Verdict)>, coarse: Option<(usize, f64)>) -> Option<usize> {
    let (score_slope, length_slope) = family.slopes();
    // How far a finer step could go.
    let ahead = |verdict| match verdict {
        Verdict::Passed(by) => by / score_slope,
        Verdict::TooLong(ratio) => ratio.ln() / length_slope,
        Verdict::Failed(_) => 0.0,
    };
    match (fine, coarse) {
        (None, None) => None,
        (Some((fine, verdict)), None) => Some(fine + ahead(verdict).round().clamp(1.0, 64.0) as usize),
        (None, Some((coarse, by))) => {
            (coarse > 0).then(|| coarse.saturating_sub((by / score_slope).round().clamp(1.0, 64.0) as usize))
        }
        (Some((fine, verdict)), Some((coarse, by))) => {
            let room = coarse.checked_sub(fine).filter(|&room| room > 1)?;
            let share = match verdict {
                Verdict::Passed(passed) => passed / (passed + by),
                _ => 0.5,
            };
            Some(fine + ((room as f64 * share).round() as usize).clamp(1, room - 1))
        }
    }
}

#[cfg(test)]
mod tests;
