//! Who asks and for what: picture names and caller digests. A credential itself never gets past this file.

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

/// The fields of a request that go upstream and decide what the caller may see, as they came.
///
/// Borrowed from the request: they are hashed and forwarded, never kept.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The value of the `MMAUTHTOKEN` cookies, each with its name, in their order.
    pub cookie: Option<&'a [u8]>,
    /// The `Authorization` field lines.
    pub authorization: &'a [&'a [u8]],
    /// The `X-Mattermost-Preauth-Secret` field lines.
    pub preauth_secret: &'a [&'a [u8]],
    /// The `Host` that is sent upstream.
    pub host: &'a [u8],
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(redacted)")
    }
}
