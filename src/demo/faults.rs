//! What a test can make go wrong with picture answers.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

/// One way to answer a picture request wrongly. The first group changes an answer that would be a picture (200) and
/// waits for one; the second replaces any answer to a picture request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// 200 with no bytes, under the validator and `Cache-Control` of the picture: seen while a picture is written.
    Empty,
    /// 200 with the first so many bytes of the file, ended cleanly: the other half of the same.
    CutOff(usize),
    /// 200 with bytes after the end of the picture, as two uploads at once can leave them in the store.
    TrailingBytes(Bytes),
    /// 200, the right type, bytes that are no picture.
    Garbage,
    /// 200 `text/html`, as a captive portal answers.
    Html,
    /// The picture under another `Content-Type`.
    WrongType(String),
    /// The picture without its validator.
    NoValidator,
    /// The picture gzipped although nobody asked for it.
    UnaskedGzip,
    /// Announces the whole picture, sends so many bytes, and breaks the connection.
    Aborted(usize),
    /// Announces the whole picture, sends so many bytes, and then nothing more.
    Stalled(usize),
    /// The picture one byte at a time, with this pause before each.
    Trickle(Duration),

    /// This status with these headers and this body, without the common headers.
    Status(u16, Vec<(String, String)>, Bytes),
    /// 304 whether or not the validator matches.
    NotModified,
    /// Takes the request and never answers.
    Silent,
}

impl Fault {
    fn needs_picture(&self) -> bool {
        !matches!(self, Self::Status(..) | Self::NotModified | Self::Silent)
    }
}

/// How often a fault happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// For the next so many answers it fits.
    Times(usize),
    /// Until the faults are cleared.
    UntilCleared,
}

/// The faults to come, one after the other.
#[derive(Default, Debug)]
pub(super) struct Script(VecDeque<(Fault, Repeat)>);

impl Script {
    pub(super) fn add(&mut self, fault: Fault, repeat: Repeat) {
        if repeat != Repeat::Times(0) {
            self.0.push_back((fault, repeat));
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault for an answer that would be a picture, or would not. Only the first in line is looked at.
    pub(super) fn next(&mut self, would_be_picture: bool) -> Option<Fault> {
        let (fault, repeat) = self.0.front_mut()?;
        if fault.needs_picture() && !would_be_picture {
            return None;
        }
        let fault = fault.clone();
        match repeat {
            Repeat::Times(1) => drop(self.0.pop_front()),
            Repeat::Times(left) => *left -= 1,
            Repeat::UntilCleared => {}
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_order_and_wait_for_what_they_fit() {
        let mut script = Script::default();
        script.add(Fault::Empty, Repeat::Times(2));
        script.add(Fault::Garbage, Repeat::Times(0));
        script.add(Fault::Silent, Repeat::UntilCleared);
        assert_eq!(script.next(false), None);
        assert_eq!(script.next(true), Some(Fault::Empty));
        assert_eq!(script.next(true), Some(Fault::Empty));
        assert_eq!(script.next(false), Some(Fault::Silent));
        assert_eq!(script.next(true), Some(Fault::Silent));
        script.clear();
        assert_eq!(script.next(true), None);
    }
}
