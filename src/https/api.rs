//! The administration API: JSON over the node's Unix socket.
//!
//! Whoever can open the socket is an administrator: it lies in the data directory with mode 0600.

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::UnixListener;

use super::error::ApiError;
use crate::admin::{
    Admin, AttemptQuery, AttemptsPage, BackupSpec, BlockSpec, BypassSpec, ClientEdit, ClientSpec,
    ClientView, DeviceSpec, DeviceView, DirectoryEdit, DirectoryReport, DirectorySpec,
    DirectoryTest, DirectoryView, Enrolled, ImportRow, LeaderView, MemberEdit, MemberView,
    NewToken, RekeySpec, RekeyView, RemovalView, ResyncSpec, RowOutcome, SettingsChangeView,
    SettingsEdit, SettingsView, StatusView, TestLogin, TestReport, TokenSpec, TokenView, UserEdit,
    UserSpec, UserView, UsersPage,
};

/// Largest request body, in bytes: a batch of imported rows.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

type Answer<T> = Result<Json<T>, ApiError>;
/// Nothing to say: 204.
type Done = Result<StatusCode, ApiError>;

/// The process at the other end of the socket.
#[derive(Clone, Debug)]
pub struct Caller {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

impl Caller {
    /// How the caller is named in what is recorded.
    fn name(&self) -> String {
        self.uid.map_or("local".to_owned(), |uid| format!("local uid {uid}"))
    }
}

/// All routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/members", get(members))
        .route("/v1/members/{id}", delete(remove_node).patch(edit_node))
        .route("/v1/tokens", get(tokens).post(create_token))
        .route("/v1/tokens/{id}", delete(revoke_token))
        .route("/v1/transfer", post(transfer))
        .route("/v1/drain", post(drain))
        .route("/v1/backup", post(backup))
        .route("/v1/rekey", post(rekey))
        .route("/v1/users", get(users).post(add_user))
        .route("/v1/users/{name}", get(user).patch(edit_user).delete(delete_user))
        .route("/v1/users/{name}/block", post(block_user).delete(unblock_user))
        .route("/v1/users/{name}/bypass", post(bypass_user))
        .route("/v1/users/{name}/devices", post(add_device))
        .route("/v1/import", post(import_users))
        .route("/v1/devices/{id}", delete(revoke_device))
        .route("/v1/devices/{id}/resync", post(resync_device))
        .route("/v1/clients", get(clients).post(add_client))
        .route("/v1/clients/{name}", get(client).patch(edit_client).delete(remove_client))
        .route("/v1/directories", get(directories).post(add_directory))
        .route(
            "/v1/directories/{name}",
            get(directory).patch(edit_directory).delete(remove_directory),
        )
        .route("/v1/directories/{name}/test", post(test_directory))
        .route("/v1/settings", get(settings).patch(edit_settings))
        .route("/v1/settings/history", get(settings_history))
        .route("/v1/settings/rollback/{revision}", post(roll_back_settings))
        .route("/v1/attempts", get(attempts))
        .route("/v1/test", post(test_login))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(admin)
}

async fn status(State(admin): State<Admin>) -> Json<StatusView> {
    Json(admin.status())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

async fn members(State(admin): State<Admin>) -> Answer<Vec<MemberView>> {
    Ok(Json(admin.members().await?))
}

async fn remove_node(State(admin): State<Admin>, Path(id): Path<u64>) -> Answer<RemovalView> {
    Ok(Json(admin.remove_node(id).await?))
}

async fn edit_node(
    State(admin): State<Admin>,
    Path(id): Path<u64>,
    Json(edit): Json<MemberEdit>,
) -> Done {
    admin.edit_node(id, edit).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tokens(State(admin): State<Admin>) -> Answer<Vec<TokenView>> {
    Ok(Json(admin.tokens().await?))
}

async fn create_token(State(admin): State<Admin>, Json(spec): Json<TokenSpec>) -> Answer<NewToken> {
    Ok(Json(admin.create_token(spec).await?))
}

async fn revoke_token(State(admin): State<Admin>, Path(id): Path<String>) -> Done {
    admin.revoke_token(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn transfer(State(admin): State<Admin>, Json(to): Json<LeaderView>) -> Answer<LeaderView> {
    Ok(Json(admin.transfer(to.leader).await?))
}

async fn drain(State(admin): State<Admin>, Json(drained): Json<bool>) -> Answer<LeaderView> {
    Ok(Json(admin.drain(drained).await?))
}

async fn backup(
    State(admin): State<Admin>,
    Json(spec): Json<BackupSpec>,
) -> Result<Vec<u8>, ApiError> {
    Ok(admin.backup(spec).await?)
}

async fn rekey(State(admin): State<Admin>, Json(spec): Json<RekeySpec>) -> Answer<RekeyView> {
    Ok(Json(admin.rekey(spec).await?))
}

async fn users(State(admin): State<Admin>, Query(page): Query<Page>) -> Answer<UsersPage> {
    Ok(Json(admin.users(page.after.as_deref(), page.limit.unwrap_or(100)).await?))
}

async fn add_user(State(admin): State<Admin>, Json(spec): Json<UserSpec>) -> Answer<UserView> {
    Ok(Json(admin.add_user(spec).await?))
}

async fn user(State(admin): State<Admin>, Path(name): Path<String>) -> Answer<UserView> {
    Ok(Json(admin.user(&name).await?))
}

async fn edit_user(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Json(edit): Json<UserEdit>,
) -> Answer<UserView> {
    Ok(Json(admin.edit_user(&name, edit).await?))
}

async fn delete_user(State(admin): State<Admin>, Path(name): Path<String>) -> Done {
    admin.delete_user(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn block_user(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    Json(spec): Json<BlockSpec>,
) -> Answer<UserView> {
    Ok(Json(admin.block_user(&name, spec, &caller.name()).await?))
}

async fn unblock_user(State(admin): State<Admin>, Path(name): Path<String>) -> Answer<UserView> {
    Ok(Json(admin.unblock_user(&name).await?))
}

async fn bypass_user(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    Json(spec): Json<BypassSpec>,
) -> Answer<UserView> {
    Ok(Json(admin.bypass_user(&name, spec, &caller.name()).await?))
}

async fn import_users(
    State(admin): State<Admin>,
    Json(rows): Json<Vec<ImportRow>>,
) -> Answer<Vec<RowOutcome>> {
    Ok(Json(admin.import_users(rows).await?))
}

async fn add_device(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Json(spec): Json<DeviceSpec>,
) -> Answer<Enrolled> {
    Ok(Json(admin.add_device(&name, spec).await?))
}

async fn revoke_device(State(admin): State<Admin>, Path(id): Path<String>) -> Done {
    admin.revoke_device(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn resync_device(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Json(spec): Json<ResyncSpec>,
) -> Answer<DeviceView> {
    Ok(Json(admin.resync_device(&id, spec).await?))
}

async fn clients(State(admin): State<Admin>) -> Answer<Vec<ClientView>> {
    Ok(Json(admin.clients().await?))
}

async fn add_client(
    State(admin): State<Admin>,
    Json(spec): Json<ClientSpec>,
) -> Answer<ClientView> {
    Ok(Json(admin.add_client(spec).await?))
}

async fn client(State(admin): State<Admin>, Path(name): Path<String>) -> Answer<ClientView> {
    Ok(Json(admin.client(&name).await?))
}

async fn edit_client(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Json(edit): Json<ClientEdit>,
) -> Answer<ClientView> {
    Ok(Json(admin.edit_client(&name, edit).await?))
}

async fn remove_client(State(admin): State<Admin>, Path(name): Path<String>) -> Done {
    admin.remove_client(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn directories(State(admin): State<Admin>) -> Answer<Vec<DirectoryView>> {
    Ok(Json(admin.directories().await?))
}

async fn add_directory(
    State(admin): State<Admin>,
    Json(spec): Json<DirectorySpec>,
) -> Answer<DirectoryView> {
    Ok(Json(admin.add_directory(spec).await?))
}

async fn directory(State(admin): State<Admin>, Path(name): Path<String>) -> Answer<DirectoryView> {
    Ok(Json(admin.directory(&name).await?))
}

async fn edit_directory(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Json(edit): Json<DirectoryEdit>,
) -> Answer<DirectoryView> {
    Ok(Json(admin.edit_directory(&name, edit).await?))
}

async fn remove_directory(State(admin): State<Admin>, Path(name): Path<String>) -> Done {
    admin.remove_directory(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn test_directory(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Json(test): Json<DirectoryTest>,
) -> Answer<Vec<DirectoryReport>> {
    Ok(Json(admin.test_directory(&name, test).await?))
}

async fn settings(State(admin): State<Admin>) -> Answer<SettingsView> {
    Ok(Json(admin.settings().await?))
}

async fn edit_settings(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Json(edit): Json<SettingsEdit>,
) -> Answer<SettingsView> {
    Ok(Json(admin.edit_settings(edit, &caller.name()).await?))
}

async fn settings_history(State(admin): State<Admin>) -> Answer<Vec<SettingsChangeView>> {
    Ok(Json(admin.settings_history().await?))
}

async fn roll_back_settings(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(revision): Path<u64>,
) -> Answer<SettingsView> {
    Ok(Json(admin.roll_back_settings(revision, &caller.name()).await?))
}

async fn attempts(
    State(admin): State<Admin>,
    Query(query): Query<AttemptQuery>,
) -> Answer<AttemptsPage> {
    Ok(Json(admin.attempts(query).await?))
}

async fn test_login(
    State(admin): State<Admin>,
    Json(login): Json<TestLogin>,
) -> Answer<TestReport> {
    Ok(Json(admin.test_login(login).await?))
}
