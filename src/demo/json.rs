//! The JSON records of Mattermost's API, with the fields and the order a real server sends.

use serde::Serialize;

use super::account::{Account, TeamState};

/// `model.AppError`.
#[derive(Serialize)]
pub(super) struct AppError<'a> {
    pub(super) id: &'a str,
    pub(super) message: &'a str,
    pub(super) detailed_error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<&'a str>,
    pub(super) status_code: u16,
}

/// `model.User`, as others see it or as its owner does.
#[derive(Serialize)]
pub(super) struct UserRecord {
    id: String,
    create_at: i64,
    update_at: i64,
    delete_at: i64,
    username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_data: Option<&'static str>,
    auth_service: &'static str,
    email: String,
    nickname: String,
    first_name: String,
    last_name: String,
    position: String,
    roles: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    notify_props: Option<NotifyProps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_password_update: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    last_picture_update: i64,
    #[serde(skip_serializing_if = "is_zero")]
    failed_attempts: i64,
    locale: &'static str,
    timezone: Timezone,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_id: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_bot: bool,
    disable_welcome_email: bool,
}

#[derive(Serialize)]
struct NotifyProps {
    channel: &'static str,
    comments: &'static str,
    desktop: &'static str,
    desktop_sound: &'static str,
    desktop_threads: &'static str,
    email: &'static str,
    email_threads: &'static str,
    first_name: &'static str,
    mention_keys: &'static str,
    push: &'static str,
    push_status: &'static str,
    push_threads: &'static str,
}

#[derive(Serialize)]
struct Timezone {
    #[serde(rename = "automaticTimezone")]
    automatic: &'static str,
    #[serde(rename = "manualTimezone")]
    manual: &'static str,
    #[serde(rename = "useAutomaticTimezone")]
    use_automatic: &'static str,
}

const NOTIFY_PROPS: NotifyProps = NotifyProps {
    channel: "true",
    comments: "never",
    desktop: "mention",
    desktop_sound: "true",
    desktop_threads: "all",
    email: "true",
    email_threads: "all",
    first_name: "false",
    mention_keys: "",
    push: "mention",
    push_status: "online",
    push_threads: "all",
};

const TIMEZONE: Timezone = Timezone { automatic: "", manual: "", use_automatic: "true" };

impl UserRecord {
    /// What anybody who may see the user is told.
    pub(super) fn for_others(account: &Account) -> Self {
        let resident = &account.resident;
        let bot = account.is_bot();
        Self {
            id: resident.id.clone(),
            create_at: account.create_at,
            update_at: account.update_at,
            delete_at: account.delete_at,
            username: resident.username.clone(),
            auth_data: Some(""),
            auth_service: "",
            email: account.email.clone(),
            nickname: account.nickname.clone(),
            first_name: resident.first_name.clone(),
            last_name: resident.last_name.clone(),
            position: resident.position.clone(),
            roles: account.roles.clone(),
            notify_props: None,
            last_password_update: None,
            last_picture_update: account.told_stamp.unwrap_or(account.stamp),
            failed_attempts: 0,
            locale: "en",
            timezone: TIMEZONE,
            remote_id: (!bot).then_some(""),
            is_bot: bot,
            disable_welcome_email: false,
        }
    }

    /// What administrators are told of a change.
    pub(super) fn for_admins(account: &Account) -> Self {
        Self { auth_data: None, notify_props: Some(NOTIFY_PROPS), ..Self::for_others(account) }
    }

    /// What the user is told.
    pub(super) fn for_owner(account: &Account) -> Self {
        Self {
            last_password_update: Some(account.create_at),
            failed_attempts: account.failed_attempts,
            ..Self::for_admins(account)
        }
    }
}

/// `model.Team`.
#[derive(Serialize)]
pub(super) struct TeamRecord {
    id: String,
    create_at: i64,
    update_at: i64,
    delete_at: i64,
    display_name: String,
    name: String,
    description: &'static str,
    email: &'static str,
    r#type: &'static str,
    company_name: &'static str,
    allowed_domains: &'static str,
    invite_id: &'static str,
    allow_open_invite: bool,
    #[serde(skip_serializing_if = "is_zero")]
    last_team_icon_update: i64,
    scheme_id: Option<&'static str>,
    group_constrained: Option<bool>,
    policy_id: Option<&'static str>,
    cloud_limits_archived: bool,
}

impl TeamRecord {
    /// What members and events are told; the invitation is left out as for everybody who may not invite.
    pub(super) fn new(state: &TeamState) -> Self {
        let name = &state.team.name;
        let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
        Self {
            id: state.team.id.clone(),
            create_at: state.create_at,
            update_at: state.update_at,
            delete_at: 0,
            display_name: first.to_uppercase() + rest,
            name: name.clone(),
            description: "",
            email: "",
            r#type: if state.team.open { "O" } else { "I" },
            company_name: "",
            allowed_domains: "",
            invite_id: "",
            allow_open_invite: state.team.open,
            last_team_icon_update: state.stamp,
            scheme_id: None,
            group_constrained: None,
            policy_id: None,
            cloud_limits_archived: false,
        }
    }
}

/// `model.Emoji`.
#[derive(Serialize)]
pub(super) struct EmojiRecord<'a> {
    id: &'a str,
    create_at: i64,
    update_at: i64,
    delete_at: i64,
    creator_id: &'a str,
    name: &'a str,
}

impl<'a> EmojiRecord<'a> {
    pub(super) fn new(emoji: &'a super::options::Emoji) -> Self {
        Self {
            id: &emoji.id,
            create_at: emoji.create_at,
            update_at: emoji.create_at,
            delete_at: 0,
            creator_id: &emoji.creator_id,
            name: &emoji.name,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}
