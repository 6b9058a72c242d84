//! How many interim answers (RFC 9110 section 15.2) may come before the answer itself: hyper reads them all, and tells nobody.

/// How many of them one request may be answered with.
const AT_MOST: u8 = 16;
/// How far the status reaches into the first line of an answer, and where it begins (RFC 9112 section 4).
const STATUS_END: usize = "HTTP/1.1 200".len();
const STATUS: usize = STATUS_END - 3;

/// There were more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {AT_MOST} interim answers")]
pub(super) struct TooMany;

/// Reads along until it is clear that the answer itself comes.
#[derive(Debug, Default)]
pub(super) struct Interims {
    count: u8,
    at: At,
}

/// Where in a head what comes next stands.
#[derive(Debug)]
enum At {
    /// In the first line, of which so much has come.
    Start([u8; STATUS_END], usize),
    /// Behind the status of an interim answer; whether the line has been empty so far.
    Rest { is_empty: bool },
}

impl Default for At {
    fn default() -> Self {
        Self::Start([0; STATUS_END], 0)
    }
}

impl Interims {
    /// Reads more of what upstream says; whether the answer itself has begun, and nothing of what follows is of interest.
    ///
    /// # Errors
    /// Too many interim answers.
    pub(super) fn heed(&mut self, bytes: &[u8]) -> Result<bool, TooMany> {
        for &byte in bytes {
            match (&mut self.at, byte) {
                // An empty line before the first is none (RFC 9112 section 2.2), nor is a carriage return at the end of one.
                (At::Start(_, 0), b'\r' | b'\n') | (At::Rest { .. }, b'\r') => {}
                (At::Start(line, read), _) => {
                    line[*read] = byte;
                    *read += 1;
                    if *read == STATUS_END {
                        // 101 is an answer: it is the last that is HTTP.
                        if line[STATUS] != b'1' || line[STATUS..] == *b"101" {
                            return Ok(true);
                        }
                        self.count += 1;
                        if self.count > AT_MOST {
                            return Err(TooMany);
                        }
                        self.at = At::Rest { is_empty: false };
                    }
                }
                (At::Rest { is_empty: true }, b'\n') => self.at = At::default(),
                (At::Rest { is_empty }, b'\n') => *is_empty = true,
                (At::Rest { is_empty }, _) => *is_empty = false,
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX: 1\r\n\r\n";
    const LINE_FEEDS: &str = "\r\nHTTP/1.1 199 x\nA: b\n\n";

    /// What comes of `said`, however it is cut into pieces.
    fn check(said: &str, expected: Result<bool, TooMany>) {
        for size in [1, 2, 3, 7, 11, 12, 13, 1000] {
            let mut interims = Interims::default();
            let mut outcome = Ok(false);
            for piece in said.as_bytes().chunks(size) {
                if outcome == Ok(false) {
                    outcome = interims.heed(piece);
                }
            }
            assert_eq!(outcome, expected, "{size} {said:?}");
        }
    }

    #[test]
    fn so_many_may_come_before_the_answer() {
        let answer = "HTTP/1.1 200 OK\r\n\r\n";
        check("", Ok(false));
        check(answer, Ok(true));
        check("HTTP/1.0 404 Not Found\r\n\r\n", Ok(true));
        check("HTTP/1.1 101 Switching Protocols\r\n\r\n", Ok(true));
        for interim in [CONTINUE, HINTS, LINE_FEEDS] {
            check(interim, Ok(false));
            check(&format!("{interim}{answer}"), Ok(true));
            check(&interim.repeat(16), Ok(false));
            check(&format!("{}{answer}", interim.repeat(16)), Ok(true));
            check(&interim.repeat(17), Err(TooMany));
        }
        check(&format!("{HINTS}{CONTINUE}{LINE_FEEDS}HTTP/1.1 101 x\r\n"), Ok(true));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_too_strange(said in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Interims::default().heed(&said);
        }
    }
}
