//! What is asked for: the names of pictures.

use std::fmt;

/// The kinds of picture that Mattermost shows under an API route of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PictureKind {
    /// `users/{id}/image`
    User,
    /// `users/{id}/image/default`
    Default,
    /// `teams/{id}/image`
    Team,
    /// `emoji/{id}/image`
    Emoji,
}

impl PictureKind {
    /// Every kind, for tables.
    pub const ALL: [Self; 4] = [Self::User, Self::Default, Self::Team, Self::Emoji];

    /// The word for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Default => "default",
            Self::Team => "team",
            Self::Emoji => "emoji",
        }
    }

    /// Whether upstream gives pictures of this kind a validator. Emoji and generated default pictures have none
    /// (`getEmojiImage`, `getDefaultProfileImage`).
    #[must_use]
    pub const fn has_validator(self) -> bool {
        matches!(self, Self::User | Self::Team)
    }
}

/// A Mattermost id in canonical form: 26 characters `[a-z0-9]` (`model.IsValidId`, `model.NewId`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId([u8; 26]);

impl ObjectId {
    /// Takes the canonical form only; upper case and any other spelling is left to upstream.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let id: [u8; 26] = raw.try_into().ok()?;
        id.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).then_some(Self(id))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an ObjectId is ASCII by construction")
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The site that a request is for: a digest of the `Host` sent upstream, so that two sites behind one address never
/// share a validator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Site([u8; 16]);

impl Site {
    /// The site of a `Host` field value; host names know no case.
    #[must_use]
    pub fn of(host: &[u8]) -> Self {
        let hash = blake3::hash(&host.to_ascii_lowercase());
        Self(hash.as_bytes()[..16].try_into().expect("blake3 gives 32 bytes"))
    }
}

/// Something that upstream shows under one path of one site.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PictureId {
    /// The site.
    pub site: Site,
    /// What kind of picture.
    pub kind: PictureKind,
    /// The user's, team's or emoji's id.
    pub object: ObjectId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_an_id() {
        for (raw, is_id) in [
            ("ge45wmpse3g8umtziei4q749th", true),
            ("00000000000000000000000000", true),
            ("GE45WMPSE3G8UMTZIEI4Q749TH", false),
            ("ge45wmpse3g8umtziei4q749t", false),
            ("ge45wmpse3g8umtziei4q749thh", false),
            ("ge45wmpse3g8umtziei4q749t\u{fc}", false),
            ("ge45wmpse3g8umtziei4q749t-", false),
            ("", false),
        ] {
            let id = ObjectId::parse(raw.as_bytes());
            assert_eq!(id.is_some(), is_id, "{raw}");
            assert!(id.is_none_or(|id| id.as_str() == raw));
        }
    }

    #[test]
    fn sites_are_told_apart_by_host_in_any_case() {
        assert_eq!(Site::of(b"Chat.Example"), Site::of(b"chat.example"));
        assert_ne!(Site::of(b"chat.example"), Site::of(b"chat.example:8065"));
    }
}
