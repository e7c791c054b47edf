//! System calls on the descriptors that the interpreter owns, and what the kernel says of a datagram.
//!
//! Sources: ip(7), ipv6(7), udp(7), tuntap.rst; linux/udp.h.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};
use nix::sys::uio::writev;
use nix::unistd::read;

/// Room for all control messages that we ask the kernel for, and to spare. They begin with a
/// `cmsghdr`, to which nix makes references.
#[repr(align(8))]
struct Control([u8; 256]);

const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());

/// The descriptors of one call; -1 stands for a socket that there is not.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    /// The TUN device.
    pub tun: RawFd,
    /// The UDP socket of IPv4.
    pub v4: RawFd,
    /// The UDP socket of IPv6.
    pub v6: RawFd,
}

impl Descriptors {
    /// The socket of the address family of `remote`.
    pub fn socket(&self, remote: &SocketAddr) -> RawFd {
        if remote.is_ipv4() { self.v4 } else { self.v6 }
    }
}

#[expect(
    unsafe_code,
    reason = "Python's objects own the descriptors, and hold them for as long as a call lasts; a \
              number that is none only makes the system call fail with EBADF"
)]
fn borrowed(descriptor: RawFd) -> Result<BorrowedFd<'static>, Errno> {
    if descriptor < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: it is not -1, and used for one system call only.
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) })
}

/// Read one frame into `room`; 0 if there is none now.
pub fn read_frame(descriptor: RawFd, room: &mut [u8]) -> Result<usize, Errno> {
    match read(borrowed(descriptor)?, room) {
        // EIO: the interface is down, so there is none either.
        Err(Errno::EAGAIN | Errno::EIO) => Ok(0),
        result => result,
    }
}

/// Write one frame, which lies in `parts`; false if the device is busy.
pub fn write_frame(descriptor: RawFd, parts: &[IoSlice<'_>]) -> Result<bool, Errno> {
    match writev(borrowed(descriptor)?, parts) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error),
    }
}

/// One of our addresses, and an interface if that is an IPv6 link-local address, else 0.
pub type Local = (IpAddr, u32);

/// Where a batch comes from, and which of our addresses it reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Address and port of the sender.
    pub remote: SocketAddr,
    /// `None` if the kernel did not say, or if nothing can be sent from there.
    pub local: Option<Local>,
}

/// What `receive` found.
#[derive(Clone, Debug)]
pub struct Received {
    /// Bytes of all datagrams.
    pub length: usize,
    /// Length of all but the last; `length` for a single one.
    pub stride: usize,
    /// Its sender; `None` if that is no address of IPv4 or IPv6.
    pub origin: Option<Origin>,
    /// The ECN field of the outer header.
    pub ecn: u8,
    /// MSG_TRUNC and MSG_CTRUNC.
    pub flags: i32,
    /// What the kernel said.
    pub messages: Vec<ControlMessageOwned>,
}

/// Receive one batch into `room`; `None` if there is none now.
pub fn receive(descriptor: RawFd, room: &mut [u8]) -> Result<Option<Received>, Errno> {
    let mut control = Control([0; 256]);
    let mut parts = [IoSliceMut::new(room)];
    let flags = MsgFlags::empty();
    let message =
        match recvmsg::<SockaddrStorage>(descriptor, &mut parts, Some(&mut control.0), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        };
    let mut received = Received {
        length: message.bytes,
        stride: message.bytes,
        origin: None,
        ecn: 0,
        flags: message.flags.bits() & (libc::MSG_TRUNC | libc::MSG_CTRUNC),
        messages: Vec::new(),
    };
    let mut local = None;
    // An error means that control messages were cut off, which the flags say as well.
    for one in message.cmsgs().into_iter().flatten() {
        match one {
            ControlMessageOwned::Ipv4PacketInfo(info) => local = local_v4(&info),
            ControlMessageOwned::Ipv6PacketInfo(info) => local = local_v6(&info),
            ControlMessageOwned::UdpGroSegments(stride) if stride > 0 => {
                received.stride = stride as usize;
            }
            ControlMessageOwned::Ipv4Tos(tos) => received.ecn = tos & 3,
            ControlMessageOwned::Ipv6TClass(class) => received.ecn = class as u8 & 3,
            _ => {}
        }
        received.messages.push(one);
    }
    received.origin = message
        .address
        .as_ref()
        .and_then(remote)
        .map(|remote| Origin { remote, local });
    Ok(Some(received))
}

fn local_v4(info: &libc::in_pktinfo) -> Option<Local> {
    // Not `ipi_addr`: the header's destination may be a broadcast address.
    let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
    Some((address.into(), 0))
}

fn local_v6(info: &libc::in6_pktinfo) -> Option<Local> {
    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
    let scope = if address.is_unicast_link_local() {
        info.ipi6_ifindex
    } else {
        0
    };
    // Nothing can be sent from a multicast address.
    (!address.is_multicast()).then_some((address.into(), scope))
}

fn remote(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = address.as_sockaddr_in6()?;
    // The flow label is none of an endpoint's properties.
    Some(SocketAddrV6::new(v6.ip(), v6.port(), 0, v6.scope_id()).into())
}

/// Send one datagram, or a batch of datagrams of `stride` bytes if there is more in it.
pub fn send(
    descriptor: RawFd,
    batch: &[u8],
    stride: usize,
    ecn: u8,
    origin: &Origin,
) -> Result<(), Errno> {
    let class = i32::from(ecn);
    let segment = stride as u16;
    let (info_v4, info_v6);
    let mut messages: [Option<ControlMessage<'_>>; 3] = [None, None, None];
    match origin.local {
        Some((IpAddr::V4(address), ifindex)) => {
            info_v4 = libc::in_pktinfo {
                ipi_ifindex: ifindex as i32,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            messages[0] = Some(ControlMessage::Ipv4PacketInfo(&info_v4));
        }
        Some((IpAddr::V6(address), ifindex)) => {
            info_v6 = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex: ifindex,
            };
            messages[0] = Some(ControlMessage::Ipv6PacketInfo(&info_v6));
        }
        None => {}
    }
    if ecn != 0 {
        messages[1] = Some(if origin.remote.is_ipv4() {
            ControlMessage::Ipv4Tos(&ecn)
        } else {
            ControlMessage::Ipv6TClass(&class)
        });
    }
    if batch.len() > stride {
        messages[2] = Some(ControlMessage::UdpGsoSegments(&segment));
    }
    let mut given = [ControlMessage::Ipv4Tos(&0); 3];
    let mut count = 0;
    for message in messages.into_iter().flatten() {
        given[count] = message;
        count += 1;
    }
    let to = SockaddrStorage::from(origin.remote);
    let parts = [IoSlice::new(batch)];
    let flags = MsgFlags::empty();
    sendmsg(descriptor, &parts, &given[..count], flags, Some(&to)).map(drop)
}
