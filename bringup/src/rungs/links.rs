//! Hears from the kernel when a cable, an address or a route comes or goes (rtnetlink).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

/// Links, IPv4 and IPv6 addresses, IPv4 and IPv6 routes (`RTMGRP_*` of `linux/rtnetlink.h`).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// The kernel's announcements. What they say is not read: whoever hears one looks for itself.
pub struct LinkNews(AsyncFd<OwnedFd>);

impl LinkNews {
    /// Subscribes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn subscribe() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        #[expect(
            deprecated,
            reason = "unsound for descriptors that change; an OwnedFd does not"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self(socket))
    }

    /// Waits until something was announced, and takes in all that was.
    pub async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let mut ready = self.0.readable().await?;
        loop {
            let read = ready.try_io(|socket| {
                recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)
            });
            match read {
                // Announcements that were lost (ENOBUFS) are news, too.
                Ok(_) => {}
                Err(_would_block) => return Ok(()),
            }
        }
    }
}
