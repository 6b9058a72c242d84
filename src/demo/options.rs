//! What a stand-in is started with: who lives there, which teams and emoji there are, and its limits.

use bytes::Bytes;

use super::ids;
use super::illustrations::{self, Style};
use super::residents;

/// How a stand-in is set up. The default is the demo's town of about 40 people.
#[derive(Clone, Debug)]
pub struct Options {
    /// The people and bots; ids and usernames are unique.
    pub residents: Vec<Resident>,
    /// The teams; the first is the one that a resident belongs to unless it says otherwise.
    pub teams: Vec<Team>,
    /// Channels beside the town square that each team has.
    pub channels: Vec<Channel>,
    /// The custom emoji.
    pub emoji: Vec<Emoji>,
    /// The username that the page at `/` signs its viewer in as. `None`: the page signs nobody in.
    pub visitor: Option<String>,
    /// Mattermost's `SiteURL`, which a WebSocket's `Origin` must equal. `None`: the `Host` of the request counts.
    pub site_url: Option<String>,
    /// Mattermost's `MaxFileSize`, in bytes.
    pub max_file_size: usize,
}

/// Mattermost's default `MaxFileSize`: 100 MiB.
const MAX_FILE_SIZE: usize = 104_857_600;

impl Default for Options {
    fn default() -> Self {
        let team = Team { icon: Some((illustrations::team_icon(), 1_700_000_000_000)), ..Team::new("harbour") };
        Self {
            residents: residents::cast(),
            emoji: vec![
                Emoji::new("sunny", illustrations::still_emoji(), "image/png"),
                Emoji::new("carousel", illustrations::moving_emoji(), "image/gif"),
            ],
            teams: vec![team],
            channels: Vec::new(),
            visitor: Some("alice".to_owned()),
            site_url: None,
            max_file_size: MAX_FILE_SIZE,
        }
    }
}

impl Options {
    /// An empty town with the default limits, to be filled by a test.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            residents: Vec::new(),
            teams: Vec::new(),
            channels: Vec::new(),
            emoji: Vec::new(),
            visitor: None,
            site_url: None,
            max_file_size: MAX_FILE_SIZE,
        }
    }
}

/// What an account may do and see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Everything.
    Admin,
    /// Sees everybody; changes what is their own.
    Member,
    /// A guest: sees themselves and with whom they share a channel.
    Guest,
    /// With a role that lacks `view_members`; in no team that is to see only themselves.
    Outsider,
    /// A bot account; its default picture is the bot's.
    Bot,
}

impl Role {
    /// Mattermost's `roles` field of an account that is new.
    pub(super) const fn names(self) -> &'static str {
        match self {
            Self::Admin => "system_admin system_user",
            Self::Member | Self::Bot => "system_user",
            Self::Guest => "system_guest",
            Self::Outsider => "system_user_access_token",
        }
    }
}

/// What is in the file store for an account at the start.
#[derive(Clone, Debug)]
pub enum Portrait {
    /// No file yet: with stamp 0 the first GET draws and stores one and is answered without a validator.
    Undrawn,
    /// The default picture: a letter, or the bots' picture.
    Default,
    /// An illustration drawn by code when it is first asked for.
    Illustration(Style, u32),
    /// These bytes, served as `image/png`.
    Png(Bytes),
}

/// One account.
#[derive(Clone, Debug)]
pub struct Resident {
    /// 26 letters and digits; [`Resident::new`] derives it from the username.
    pub id: String,
    /// Lower case, unique.
    pub username: String,
    /// May be empty.
    pub first_name: String,
    /// May be empty.
    pub last_name: String,
    /// The job title; may be empty.
    pub position: String,
    /// What the account may do and see.
    pub role: Role,
    /// The picture at the start.
    pub portrait: Portrait,
    /// `last_picture_update` in milliseconds since 1970: 0 never changed, negative a default again.
    pub stamp: i64,
    /// The ids of the teams; `None` is the town's first team alone.
    pub teams: Option<Vec<String>>,
    /// Whether the account is deactivated: it cannot sign in, its picture is still there.
    pub deactivated: bool,
}

impl Resident {
    /// An account with the id that belongs to this username, no real name, and stamp 0 for default pictures, a fixed
    /// date for others.
    #[must_use]
    pub fn new(username: &str, role: Role, portrait: Portrait) -> Self {
        let default = matches!(portrait, Portrait::Undrawn | Portrait::Default);
        Self {
            id: ids::id_of(username),
            username: username.to_owned(),
            first_name: String::new(),
            last_name: String::new(),
            position: String::new(),
            role,
            portrait,
            stamp: if default { 0 } else { 1_710_000_000_000 + i64::from(super::letters::fnv1a(username)) },
            teams: None,
            deactivated: false,
        }
    }
}

/// One team.
#[derive(Clone, Debug)]
pub struct Team {
    /// 26 letters and digits; [`Team::new`] derives it from the name.
    pub id: String,
    /// The name in URLs.
    pub name: String,
    /// Whether anybody may join: then everybody sees its icon.
    pub open: bool,
    /// The icon (PNG) and its stamp in milliseconds since 1970.
    pub icon: Option<(Bytes, i64)>,
    /// The id of the channel that all members but guests are in.
    pub town_square: String,
}

impl Team {
    /// An open team without an icon.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            id: ids::id_of(&format!("team {name}")),
            name: name.to_owned(),
            open: true,
            icon: None,
            town_square: ids::id_of(&format!("town square {name}")),
        }
    }
}

/// One channel: whoever is in it sees the others, whatever the roles say.
#[derive(Clone, Debug)]
pub struct Channel {
    /// 26 letters and digits; [`Channel::new`] derives it from the names of team and channel.
    pub id: String,
    /// The id of the team.
    pub team_id: String,
    /// The ids of the members.
    pub members: Vec<String>,
}

impl Channel {
    /// A channel of a team with nobody in it.
    #[must_use]
    pub fn new(name: &str, team: &Team) -> Self {
        let id = ids::id_of(&format!("channel {} {name}", team.name));
        Self { id, team_id: team.id.clone(), members: Vec::new() }
    }
}

/// One custom emoji.
#[derive(Clone, Debug)]
pub struct Emoji {
    /// 26 letters and digits; [`Emoji::new`] derives it from the name.
    pub id: String,
    /// The name between the colons.
    pub name: String,
    /// The id of whoever made it; may be empty.
    pub creator_id: String,
    /// When it was made, in milliseconds since 1970.
    pub create_at: i64,
    /// The picture.
    pub bytes: Bytes,
    /// Its type: `image/png`, `image/gif` or `image/jpeg`.
    pub content_type: String,
}

impl Emoji {
    /// An emoji of nobody, with the id that belongs to its name.
    #[must_use]
    pub fn new(name: &str, bytes: Bytes, content_type: &str) -> Self {
        Self {
            id: ids::id_of(&format!("emoji {name}")),
            name: name.to_owned(),
            creator_id: String::new(),
            create_at: 1_700_000_000_000,
            bytes,
            content_type: content_type.to_owned(),
        }
    }
}
