//! Frames laid one upon the other: where each is painted, how it meets what is there, and what is left of it when the
//! next one comes (GIF version 89a section 23, W3C PNG section 11.3.4, RFC 9649 section 2.7.1.1).

use crate::render::raster::Raster;

/// A frame as its file holds it: the part of the canvas that it paints.
pub(super) struct Patch {
    pub(super) left: u32,
    pub(super) top: u32,
    /// `None` paints nothing.
    pub(super) picture: Option<Raster>,
    pub(super) blend: Blend,
    pub(super) disposal: Disposal,
    /// How long it is shown, in milliseconds.
    pub(super) delay: u32,
}

/// How a frame meets what is on the canvas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Blend {
    /// It takes the place of what is there, transparency included.
    Source,
    /// What is there shows through.
    Over,
}

/// What is done with a frame before the next one is painted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Disposal {
    /// It stays.
    Keep,
    /// Its area becomes transparent, as in browsers; the background colours that files name are shown by none.
    Clear,
    /// Its area becomes what it was.
    Restore,
}

/// What is seen while frames come and go, at first transparent.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    samples: Vec<u8>,
    /// What is to be done before the next frame.
    after: Option<After>,
}

enum After {
    Clear(Area),
    Restore(Area, Vec<u8>),
}

/// The part of a patch that lies on the canvas, in pixels.
#[derive(Clone, Copy)]
struct Area {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32) -> Self {
        let (width, height) = (pixels(width), pixels(height));
        Self { width, height, samples: vec![0; 4 * width * height], after: None }
    }

    /// What is seen once `patch` was painted. What of it lies outside is not.
    pub(super) fn show(&mut self, patch: &Patch) -> Raster {
        self.dispose();
        if let Some(picture) = &patch.picture {
            let area = self.area(patch, picture);
            self.after = match patch.disposal {
                Disposal::Keep => None,
                Disposal::Clear => Some(After::Clear(area)),
                Disposal::Restore => {
                    Some(After::Restore(area, self.rows(area).flat_map(|row| &self.samples[row]).copied().collect()))
                }
            };
            self.paint(area, picture, patch.blend);
        }
        let edge = |pixels: usize| u32::try_from(pixels).expect("it was a u32");
        Raster::with_alpha(edge(self.width), edge(self.height), self.samples.clone())
    }

    fn dispose(&mut self) {
        match self.after.take() {
            None => {}
            Some(After::Clear(area)) => self.rows(area).for_each(|row| self.samples[row].fill(0)),
            Some(After::Restore(area, before)) => {
                for (row, before) in self.rows(area).zip(before.chunks_exact((4 * area.width).max(1))) {
                    self.samples[row].copy_from_slice(before);
                }
            }
        }
    }

    fn paint(&mut self, area: Area, picture: &Raster, blend: Blend) {
        let mut lines = picture.samples.chunks_exact(pixels(picture.width) * picture.layout.channels());
        for row in self.rows(area) {
            let line = lines.next().expect("an area is no taller than its picture");
            let targets = self.samples[row].as_chunks_mut().0.iter_mut();
            for (target, pixel) in targets.zip(line.chunks_exact(picture.layout.channels())) {
                let pixel = [pixel[0], pixel[1], pixel[2], pixel.get(3).copied().unwrap_or(u8::MAX)];
                *target = if blend == Blend::Over { over(pixel, *target) } else { pixel };
            }
        }
    }

    fn area(&self, patch: &Patch, picture: &Raster) -> Area {
        let (left, top) = (pixels(patch.left).min(self.width), pixels(patch.top).min(self.height));
        let width = pixels(picture.width).min(self.width - left);
        let height = pixels(picture.height).min(self.height - top);
        Area { left, top, width, height }
    }

    /// Where the rows of an area lie in the samples.
    fn rows(&self, area: Area) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let stride = self.width;
        (area.top..area.top + area.height).map(move |y| {
            let start = 4 * (y * stride + area.left);
            start..start + 4 * area.width
        })
    }
}

fn pixels(edge: u32) -> usize {
    usize::try_from(edge).expect("an edge of a picture is a usize")
}

/// One pixel over another, neither premultiplied.
fn over(front: [u8; 4], back: [u8; 4]) -> [u8; 4] {
    let (a, b) = (u32::from(front[3]), u32::from(back[3]));
    if a == 255 || b == 0 {
        return front;
    }
    if a == 0 {
        return back;
    }
    // What still shows of the back, in 255ths of 255ths like the whole.
    let rest = b * (255 - a);
    let whole = 255 * a + rest;
    let byte = |value: u32| u8::try_from(value).expect("a mean of bytes is a byte");
    let mix = |front: u8, back: u8| byte((255 * a * u32::from(front) + rest * u32::from(back) + whole / 2) / whole);
    [mix(front[0], back[0]), mix(front[1], back[1]), mix(front[2], back[2]), byte((whole + 127) / 255)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RED: [u8; 4] = [255, 0, 0, 255];
    const BLUE: [u8; 4] = [0, 0, 255, 255];
    const NONE: [u8; 4] = [0; 4];

    fn patch(left: u32, top: u32, width: u32, height: u32, colour: [u8; 4], blend: Blend, disposal: Disposal) -> Patch {
        let samples = colour.repeat(pixels(width) * pixels(height));
        Patch { left, top, picture: Some(Raster::with_alpha(width, height, samples)), blend, disposal, delay: 10 }
    }

    /// The pixels of a canvas of 3 x 1 after each patch.
    fn check(patches: &[Patch], want: &[[[u8; 4]; 3]]) {
        let mut canvas = Canvas::new(3, 1);
        for (n, (patch, want)) in patches.iter().zip(want).enumerate() {
            assert_eq!(canvas.show(patch).rgba().collect::<Vec<_>>(), want, "frame {n}");
        }
    }

    #[test]
    fn what_was_disposed_of_is_not_seen_again() {
        for (disposal, left_over) in [(Disposal::Keep, BLUE), (Disposal::Clear, NONE), (Disposal::Restore, RED)] {
            check(
                &[
                    patch(0, 0, 3, 1, RED, Blend::Source, Disposal::Keep),
                    patch(1, 0, 1, 1, BLUE, Blend::Source, disposal),
                    patch(2, 0, 1, 1, BLUE, Blend::Source, Disposal::Keep),
                ],
                &[[RED; 3], [RED, BLUE, RED], [RED, left_over, BLUE]],
            );
        }
    }

    #[test]
    fn restoring_the_first_frame_leaves_nothing() {
        check(
            &[
                patch(0, 0, 2, 1, RED, Blend::Over, Disposal::Restore),
                patch(2, 0, 1, 1, BLUE, Blend::Over, Disposal::Keep),
            ],
            &[[RED, RED, NONE], [NONE, NONE, BLUE]],
        );
    }

    #[test]
    fn transparency_replaces_or_shows_what_is_there() {
        let half = [0, 0, 255, 128];
        check(
            &[
                patch(0, 0, 3, 1, RED, Blend::Source, Disposal::Keep),
                patch(0, 0, 1, 1, half, Blend::Over, Disposal::Keep),
                patch(1, 0, 1, 1, half, Blend::Source, Disposal::Keep),
                patch(2, 0, 1, 1, NONE, Blend::Over, Disposal::Keep),
                patch(2, 0, 1, 1, NONE, Blend::Source, Disposal::Keep),
            ],
            &[
                [RED; 3],
                [[127, 0, 128, 255], RED, RED],
                [[127, 0, 128, 255], half, RED],
                [[127, 0, 128, 255], half, RED],
                [[127, 0, 128, 255], half, NONE],
            ],
        );
    }

    #[test]
    fn what_lies_outside_is_cut_off_and_what_paints_nothing_disposes_too() {
        let nothing = Patch { left: 0, top: 0, picture: None, blend: Blend::Over, disposal: Disposal::Keep, delay: 10 };
        check(
            &[
                patch(2, 0, 9, 9, RED, Blend::Over, Disposal::Clear),
                nothing,
                patch(7, 7, 2, 2, BLUE, Blend::Over, Disposal::Restore),
                patch(0, 0, 1, 1, BLUE, Blend::Over, Disposal::Clear),
            ],
            &[[NONE, NONE, RED], [NONE; 3], [NONE; 3], [BLUE, NONE, NONE]],
        );
    }

    proptest! {
        #[test]
        fn a_blend_lies_between_what_is_blended(front in any::<[u8; 4]>(), back in any::<[u8; 4]>()) {
            let blended = over(front, back);
            prop_assert!(blended[3] >= front[3].max(back[3]));
            for n in 0..3 {
                // Where neither is to be seen, the colour does not matter, and is that of the front.
                let (least, most) = if back[3] == 0 {
                    (front[n], front[n])
                } else if front[3] == 0 {
                    (back[n], back[n])
                } else {
                    (front[n].min(back[n]), front[n].max(back[n]))
                };
                prop_assert!((least..=most).contains(&blended[n]));
            }
        }
    }
}
