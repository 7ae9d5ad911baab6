//! `server.v1.AutonpServerService`: the first token of a cluster and the next ones.

use std::sync::Arc;

use kestrel_proto::server::v1::{
    OnboardClusterRequest, OnboardClusterResponse, RenewClusterTokenRequest, RenewClusterTokenResponse,
    autonp_server_service_server::AutonpServerService,
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::streams::{connection, metadata};
use crate::{credentials::Claims, hub::Hub};

const TOKEN_TYPE: &str = "Bearer";

pub(super) struct TokenService(pub(super) Arc<Hub>);

impl TokenService {
    /// A token for a cluster, and its lifetime in seconds.
    fn mint(&self, tenant: &str, cluster: &str) -> Result<(String, i64), Status> {
        let seconds = i64::try_from(self.0.token_lifetime.as_secs()).unwrap_or(i64::MAX);
        let claims = Claims::new(tenant, cluster, self.0.token_clock(), seconds);
        let token = self.0.authority.tokens().mint(&claims);
        let token = token.map_err(|error| Status::internal(format!("no token can be minted: {error}")))?;
        Ok((token, seconds))
    }
}

#[tonic::async_trait]
impl AutonpServerService for TokenService {
    async fn renew_cluster_token(
        &self,
        request: Request<RenewClusterTokenRequest>,
    ) -> Result<Response<RenewClusterTokenResponse>, Status> {
        let info = connection(&request)?;
        let tokens = self.0.authority.tokens();
        let admitted = self.0.admit(metadata(&request, "authorization"));
        let current = request.into_inner().current_token;
        let claims =
            admitted.and_then(|_| tokens.check(&current, self.0.token_clock())).map_err(|refusal| {
                self.0.refuse(info.peer, "RenewClusterToken", refusal.to_string());
                Status::unauthenticated(refusal.to_string())
            })?;
        let (access_token, expires_in) = self.mint(&claims.tenant, &claims.sub)?;
        info!("Renewed the token of cluster {} for {expires_in} s", claims.sub);
        self.0.note("token", format!("cluster {} renewed its token for {expires_in} s", claims.sub));
        let token_type = TOKEN_TYPE.to_owned();
        Ok(Response::new(RenewClusterTokenResponse { access_token, expires_in, token_type }))
    }

    /// Needs no token, as it is how a person with a client certificate gets the first one.
    async fn onboard_cluster(
        &self,
        request: Request<OnboardClusterRequest>,
    ) -> Result<Response<OnboardClusterResponse>, Status> {
        let cluster_name = request.into_inner().cluster_name;
        if cluster_name.is_empty() {
            return Err(Status::invalid_argument("cluster_name is empty"));
        }
        let (access_token, expires_in) = self.mint(&self.0.tenant, &cluster_name)?;
        info!("Onboarded cluster {cluster_name}");
        Ok(Response::new(OnboardClusterResponse {
            access_token,
            cluster_id: cluster_name.clone(),
            cluster_name,
            expires_in,
            token_type: TOKEN_TYPE.to_owned(),
        }))
    }
}
