//! Tells init, by the systemd notify protocol, that the controller serves.

use std::os::unix::net::UnixDatagram;

/// Sends `READY=1` if somebody supervises this process.
pub(crate) fn ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1\n", &path));
    if let Err(error) = sent {
        tracing::warn!("init cannot be told that the controller is ready: {error}");
    }
}
