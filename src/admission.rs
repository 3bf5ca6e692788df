//! The door for nodes that hold a join token: gRPC on the peer port.
//!
//! The transport has checked the token before anything arrives here. That the node holds the key that
//! it names is checked by [`Admin::admit`].

use tonic::{Request, Response, Status};
use watchword_proto::admission_server::{Admission, AdmissionServer};
use watchword_proto::{JoinAnswer, JoinRequest};

use crate::admin::{Admin, AdminError, Caller, JoinSpec};
use crate::error_chain::chain;

/// Longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

struct Door(Admin);

/// The admission as a service.
pub fn routes(admin: Admin) -> tonic::service::Routes {
    let service = AdmissionServer::new(Door(admin)).max_decoding_message_size(REQUEST_BYTES_MAX);
    tonic::service::Routes::new(service)
}

#[tonic::async_trait]
impl Admission for Door {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinAnswer>, Status> {
        let caller = request.extensions().get::<Caller>().copied();
        let caller = caller.ok_or_else(|| Status::unauthenticated("who are you?"))?;
        let JoinRequest { address, public_key, votes, proof } = request.into_inner();
        let spec = JoinSpec { address, public_key: public_key.into(), votes, proof: proof.into() };
        let admitted = self.0.admit(caller, spec).await.map_err(|error| {
            tracing::warn!(error = chain(&error), "a node was not admitted");
            refused(&error)
        })?;
        Ok(Response::new(JoinAnswer {
            node: admitted.node,
            cluster: admitted.authority.cluster.0.to_vec().into(),
            authority: admitted.authority.certificate.to_vec().into(),
            certificate: admitted.certificate.into(),
            data_keys: admitted.data_keys.to_vec().into(),
            epoch: admitted.epoch,
        }))
    }
}

fn refused(error: &AdminError) -> Status {
    let text = chain(error);
    match error {
        AdminError::Refused(_) | AdminError::Invalid(_) => Status::failed_precondition(text),
        AdminError::Propose(_) | AdminError::Read(_) => Status::unavailable(text),
        _ => Status::internal(text),
    }
}
