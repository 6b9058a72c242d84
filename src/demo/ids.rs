//! Identifiers as Mattermost makes and checks them (`NewId` and `IsValidId` in `server/public/model/utils.go`).

use sha1::{Digest, Sha1};

/// The base32 alphabet of `NewId`.
const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// The length of every id and every token, in characters.
pub(super) const LENGTH: usize = 26;

/// A fresh random id; tokens and request ids have the same shape.
pub(super) fn new_id() -> String {
    let mut random = [0; LENGTH];
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    spell(&random)
}

/// The id that always belongs to this name, so that two starts of the demo have the same people under the same paths.
pub(super) fn id_of(name: &str) -> String {
    let digest = Sha1::digest(name.as_bytes());
    spell(&digest.iter().chain(&digest).copied().take(LENGTH).collect::<Vec<u8>>())
}

/// Whether Mattermost takes this for an id: 26 letters or digits, of any case.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_mattermosts_shape() {
        for id in [new_id(), id_of("alice"), id_of("")] {
            assert!(is_id(&id), "{id}");
        }
        assert_ne!(new_id(), new_id());
        assert_eq!(id_of("alice"), id_of("alice"));
    }

    #[test]
    fn only_26_letters_and_digits_are_an_id() {
        for (text, expected) in [
            ("ge45wmpse3g8umtziei4q749th", true),
            ("GE45WMPSE3G8UMTZIEI4Q749TH", true),
            ("ge45wmpse3g8umtziei4q749t", false),
            ("ge45wmpse3g8umtziei4q749thh", false),
            ("ge45wmpse3g8umtziei4q749t_", false),
            ("me", false),
            ("", false),
        ] {
            assert_eq!(is_id(text), expected, "{text}");
        }
    }
}
