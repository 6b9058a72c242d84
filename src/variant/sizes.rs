//! The configured list of pixel sizes, checked once.

use super::parameters::LONGEST_EDGE;

/// The pixel sizes that variants are made in, ascending: few, so that a sweep of sizes fills no cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sizes(Box<[u32]>);

/// Why a list of sizes is refused.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum SizesError {
    /// No entry.
    #[error("at least one size is needed")]
    Empty,
    /// Out of range.
    #[error("{0} is not a size from 1 to {LONGEST_EDGE}")]
    OutOfRange(u32),
    /// Not strictly ascending.
    #[error("sizes must ascend, but {0} is followed by {1}")]
    NotAscending(u32, u32),
}

impl Sizes {
    /// Takes a list in pixels.
    ///
    /// # Errors
    /// When it is empty, has an entry outside 1 to 4096, or does not ascend strictly.
    pub fn new(list: impl Into<Box<[u32]>>) -> Result<Self, SizesError> {
        let list = list.into();
        if list.is_empty() {
            return Err(SizesError::Empty);
        }
        if let Some(outside) = list.iter().find(|size| !(1..=LONGEST_EDGE).contains(*size)) {
            return Err(SizesError::OutOfRange(*outside));
        }
        if let Some(pair) = list.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(SizesError::NotAscending(pair[0], pair[1]));
        }
        Ok(Self(list))
    }

    /// The list.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// The least entry that is not below `pixels`, or else the last.
    pub(super) fn round_up(&self, pixels: u32) -> u32 {
        let at = self.0.partition_point(|size| *size < pixels).min(self.0.len() - 1);
        self.0[at]
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self(Box::new([16, 20, 24, 32, 40, 48, 64, 72, 96, 128, 192, 256]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_once() {
        for (list, outcome) in [
            (vec![], Err(SizesError::Empty)),
            (vec![0, 1], Err(SizesError::OutOfRange(0))),
            (vec![1, 4097], Err(SizesError::OutOfRange(4097))),
            (vec![16, 16], Err(SizesError::NotAscending(16, 16))),
            (vec![16, 32, 24], Err(SizesError::NotAscending(32, 24))),
            (vec![1, 4096], Ok(())),
        ] {
            assert_eq!(Sizes::new(list).map(drop), outcome);
        }
        assert_eq!(Sizes::new(Sizes::default().as_slice()), Ok(Sizes::default()));
    }

    #[test]
    fn a_size_is_rounded_up_to_the_list_or_down_to_its_end() {
        let sizes = Sizes::default();
        for (pixels, size) in [(0, 16), (1, 16), (16, 16), (17, 20), (97, 128), (256, 256), (257, 256), (u32::MAX, 256)]
        {
            assert_eq!(sizes.round_up(pixels), size, "{pixels}");
        }
    }
}
