//! A picture in memory: rows of 8-bit sRGB samples without padding, with an alpha channel only where something shows
//! through.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage, RgbaImage};

/// Which samples a pixel has, in the order of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// Red, green, blue: every pixel is opaque.
    Rgb,
    /// Red, green, blue, alpha (not premultiplied): some pixel is not opaque.
    Rgba,
}

impl Layout {
    /// Bytes of a pixel.
    pub(super) const fn channels(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// A picture in memory. There is at least one pixel, and exactly `width * height` of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Raster {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) layout: Layout,
    pub(super) samples: Vec<u8>,
}

impl Raster {
    /// Takes opaque pixels.
    pub(super) fn opaque(width: u32, height: u32, samples: Vec<u8>) -> Self {
        Self::checked(width, height, Layout::Rgb, samples)
    }

    /// Takes pixels with an alpha channel, and drops the channel when it says nothing: it would cost bytes in a PNG
    /// and time everywhere.
    pub(super) fn with_alpha(width: u32, height: u32, samples: Vec<u8>) -> Self {
        if samples.chunks_exact(4).any(|pixel| pixel[3] < u8::MAX) {
            return Self::checked(width, height, Layout::Rgba, samples);
        }
        let opaque = samples.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        Self::checked(width, height, Layout::Rgb, opaque)
    }

    fn checked(width: u32, height: u32, layout: Layout, samples: Vec<u8>) -> Self {
        assert_eq!(samples.len() as u64, u64::from(width) * u64::from(height) * layout.channels() as u64);
        assert!(!samples.is_empty(), "a picture has pixels");
        Self { width, height, layout, samples }
    }

    /// Whether some pixel is not opaque.
    pub(super) fn has_alpha(&self) -> bool {
        self.layout == Layout::Rgba
    }

    /// How many pixels there are.
    pub(super) fn len(&self) -> usize {
        self.samples.len() / self.layout.channels()
    }

    /// The pixels as red, green, blue, alpha.
    pub(super) fn rgba(&self) -> impl Iterator<Item = [u8; 4]> + '_ {
        let alpha = self.has_alpha();
        self.samples
            .chunks_exact(self.layout.channels())
            .map(move |pixel| [pixel[0], pixel[1], pixel[2], if alpha { pixel[3] } else { u8::MAX }])
    }

    /// Turns and mirrors the picture as its EXIF orientation asks.
    pub(super) fn upright(self, orientation: Orientation) -> Self {
        if orientation == Orientation::NoTransforms {
            return self;
        }
        let (width, height) = (self.width, self.height);
        let mut picture: DynamicImage = match self.layout {
            Layout::Rgb => RgbImage::from_raw(width, height, self.samples).map(Into::into),
            Layout::Rgba => RgbaImage::from_raw(width, height, self.samples).map(Into::into),
        }
        .expect("a raster has exactly its pixels");
        picture.apply_orientation(orientation);
        Self { width: picture.width(), height: picture.height(), layout: self.layout, samples: picture.into_bytes() }
    }

    /// The picture composited on `background`, in sRGB values as browsers do.
    pub(super) fn flattened(&self, background: [u8; 3]) -> Self {
        let blend = |over: u8, under: u8, alpha: u8| {
            let (over, under, alpha) = (u32::from(over), u32::from(under), u32::from(alpha));
            u8::try_from((over * alpha + under * (255 - alpha) + 127) / 255).expect("a mean of two bytes is a byte")
        };
        let samples = self
            .rgba()
            .flat_map(|[r, g, b, a]| {
                [blend(r, background[0], a), blend(g, background[1], a), blend(b, background[2], a)]
            })
            .collect();
        Self::checked(self.width, self.height, Layout::Rgb, samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alpha_channel_that_says_nothing_is_dropped() {
        let opaque = Raster::with_alpha(2, 1, vec![1, 2, 3, 255, 4, 5, 6, 255]);
        assert_eq!(opaque, Raster::opaque(2, 1, vec![1, 2, 3, 4, 5, 6]));
        assert!(Raster::with_alpha(2, 1, vec![1, 2, 3, 255, 4, 5, 6, 254]).has_alpha());
    }

    #[test]
    fn flattening_blends_in_srgb_values() {
        let half = Raster::with_alpha(3, 1, vec![200, 0, 0, 128, 9, 9, 9, 0, 7, 8, 9, 255]);
        assert_eq!(half.flattened([0, 100, 255]).samples, [100, 50, 127, 0, 100, 255, 7, 8, 9]);
    }

    #[test]
    fn orientation_turns_the_picture() {
        let wide = || Raster::opaque(2, 1, vec![1, 1, 1, 2, 2, 2]);
        let turned = wide().upright(Orientation::Rotate90);
        assert_eq!((turned.width, turned.height, turned.samples[0]), (1, 2, 1));
        assert_eq!(wide().upright(Orientation::FlipHorizontal).samples, [2, 2, 2, 1, 1, 1]);
        assert_eq!(wide().upright(Orientation::NoTransforms), wide());
    }
}
