/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Rewriting addresses and ports. Checksums are changed by differences (RFC
 * 1624), the transport's by the helper that knows what hardware is still to do.
 */
#ifndef MESHACCEL_IPVS_REWRITE_H
#define MESHACCEL_IPVS_REWRITE_H

#include "headers.h"

#define TCP_CHECKSUM_AT 16
#define UDP_CHECKSUM_AT 6
#define ICMP_CHECKSUM_AT 2

/* Where a packet comes from and goes to. */
struct ends {
	struct ipvs_address source;
	struct ipvs_address destination;
	struct ports ports;
};

static __always_inline struct ends ends_of(const struct ipvs_flow_key *flow)
{
	return (struct ends){
		.source = flow->source,
		.destination = flow->destination,
		.ports = {flow->source_port, flow->destination_port},
	};
}

static __always_inline __u32 ports_word(const struct ports *ports)
{
	return ports->source | (__u32)ports->destination << 16;
}

static __always_inline __u64 word_difference(__u32 before, __u32 after)
{
	return (__u64)(__u32)~before + after;
}

static __always_inline __u64 address_difference(const struct ipvs_address *before,
						const struct ipvs_address *after, const bool ipv6)
{
	__u64 sum = word_difference(before->word[3], after->word[3]);

	if (ipv6)
		for (__u32 i = 0; i < 3; i++)
			sum += word_difference(before->word[i], after->word[i]);
	return sum;
}

static __always_inline __u32 fold_to_32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

static __always_inline __u16 fold_to_16(__u64 sum)
{
	__u32 folded = fold_to_32(sum);

	folded = (folded & 0xffff) + (folded >> 16);
	return (folded & 0xffff) + (folded >> 16);
}

/*
 * Of an IPv6 packet the transport's checksum outweighs the addresses, so the sum
 * that a device has made of the whole packet stays; the helper takes every
 * address for an IPv4 one, whose header has a checksum of its own.
 */
static __always_inline bool change_pseudo_header(struct __sk_buff *packet, __u32 checksum_at,
						 __u32 difference, __u64 flags, const bool ipv6)
{
	if (bpf_l4_csum_replace(packet, checksum_at, 0, difference, BPF_F_PSEUDO_HDR | flags))
		return false;
	if (ipv6)
		bpf_csum_update(packet, difference);
	return true;
}

static __always_inline bool rewrite_transport(struct __sk_buff *packet, const struct headers *found,
					      const struct ends *after, __u64 addresses,
					      const bool ipv6)
{
	bool udp = found->flow.protocol == IPPROTO_UDP;
	__u32 checksum_at = found->transport + (udp ? UDP_CHECKSUM_AT : TCP_CHECKSUM_AT);
	/* UDP over IPv4 may be without a checksum, and then stays so. */
	__u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;
	struct ports before = {found->flow.source_port, found->flow.destination_port};
	__u32 ports = fold_to_32(word_difference(ports_word(&before), ports_word(&after->ports)));
	struct ports *written;

	if (!change_pseudo_header(packet, checksum_at, fold_to_32(addresses), flags, ipv6))
		return false;
	if (ports_word(&before) == ports_word(&after->ports))
		return true;
	if (bpf_l4_csum_replace(packet, checksum_at, 0, ports, flags))
		return false;
	written = header_at(packet, found->transport, sizeof(*written));
	if (!written)
		return false;
	*written = after->ports;
	return true;
}

static __always_inline bool rewrite_ipv4(struct __sk_buff *packet, const struct headers *found,
					 const struct ends *after, __u64 addresses, bool forwards)
{
	struct iphdr *ip = header_at(packet, found->network, sizeof(*ip));
	__u64 sum;

	if (!ip)
		return false;
	sum = addresses + (__u16)~ip->check;
	ip->saddr = after->source.word[3];
	ip->daddr = after->destination.word[3];
	if (forwards) {
		__u16 *hops = (__u16 *)&ip->ttl;

		sum += (__u16) ~*hops;
		ip->ttl--;
		sum += *hops;
	}
	ip->check = ~fold_to_16(sum);
	return true;
}

static __always_inline bool rewrite_ipv6(struct __sk_buff *packet, const struct headers *found,
					 const struct ends *after, bool forwards)
{
	struct ipv6hdr *ip = header_at(packet, found->network, sizeof(*ip));

	if (!ip)
		return false;
	for (__u32 i = 0; i < 4; i++) {
		ip->saddr.in6_u.u6_addr32[i] = after->source.word[i];
		ip->daddr.in6_u.u6_addr32[i] = after->destination.word[i];
	}
	if (forwards)
		ip->hop_limit--;
	return true;
}

/*
 * Gives a packet other ends. A fragment behind the first (`has_transport` is
 * false) has no ports, and the first one's checksum covers it. `forwards` takes
 * one from the hops that are left.
 */
static __always_inline bool rewrite(struct __sk_buff *packet, const struct headers *found,
				    const struct ends *after, bool has_transport, bool forwards,
				    const bool ipv6)
{
	__u64 addresses = address_difference(&found->flow.source, &after->source, ipv6) +
			  address_difference(&found->flow.destination, &after->destination, ipv6);

	if (has_transport && !rewrite_transport(packet, found, after, addresses, ipv6))
		return false;
	if (ipv6)
		return rewrite_ipv6(packet, found, after, forwards);
	return rewrite_ipv4(packet, found, after, addresses, forwards);
}

/*
 * Gives the packet that an ICMP error is about, `found->flow`, other ends. The
 * checksum of the transport in there is left: often it is cut off, and who gets
 * the error looks up a socket by addresses and ports.
 */
static __always_inline bool rewrite_about_ipv4(struct __sk_buff *packet,
					       const struct headers *found,
					       const struct ends *after, __u64 ports)
{
	__u32 about = found->transport + sizeof(struct error_header);
	struct iphdr *ip = header_at(packet, about, sizeof(*ip));
	__u64 addresses = address_difference(&found->flow.source, &after->source, false) +
			  address_difference(&found->flow.destination, &after->destination, false);

	if (!ip)
		return false;
	ip->check = ~fold_to_16(addresses + (__u16)~ip->check);
	ip->saddr = after->source.word[3];
	ip->daddr = after->destination.word[3];
	/* The addresses and the header's own checksum outweigh each other in that of the error. */
	if (bpf_l4_csum_replace(packet, found->transport + ICMP_CHECKSUM_AT, 0, fold_to_32(ports),
				0))
		return false;
	return !bpf_skb_store_bytes(packet, about + sizeof(*ip), &after->ports,
				    sizeof(after->ports), 0);
}

static __always_inline bool rewrite_about_ipv6(struct __sk_buff *packet,
					       const struct headers *found,
					       const struct ends *after, __u64 ports)
{
	__u32 about = found->transport + sizeof(struct error_header);
	__u32 addresses_at = about + offsetof(struct ipv6hdr, saddr);
	__u64 difference = address_difference(&found->flow.source, &after->source, true) +
			   address_difference(&found->flow.destination, &after->destination, true) +
			   ports;

	if (bpf_l4_csum_replace(packet, found->transport + ICMP_CHECKSUM_AT, 0,
				fold_to_32(difference), 0))
		return false;
	if (bpf_skb_store_bytes(packet, addresses_at, &after->source, 2 * sizeof(after->source), 0))
		return false;
	return !bpf_skb_store_bytes(packet, about + sizeof(struct ipv6hdr), &after->ports,
				    sizeof(after->ports), 0);
}

static __always_inline bool rewrite_about(struct __sk_buff *packet, const struct headers *found,
					  const struct ends *after, const bool ipv6)
{
	struct ports before = {found->flow.source_port, found->flow.destination_port};
	__u64 ports = word_difference(ports_word(&before), ports_word(&after->ports));

	return ipv6 ? rewrite_about_ipv6(packet, found, after, ports)
		    : rewrite_about_ipv4(packet, found, after, ports);
}

/* Sends an ICMP error, whose flow is that of the packet it is about, to another destination. */
static __always_inline bool redirect_error_ipv4(struct __sk_buff *packet,
						const struct headers *found,
						const struct ipvs_address *destination)
{
	struct iphdr *ip = header_at(packet, found->network, sizeof(*ip));

	if (!ip)
		return false;
	ip->check =
		~fold_to_16(word_difference(ip->daddr, destination->word[3]) + (__u16)~ip->check);
	ip->daddr = destination->word[3];
	return true;
}

/* The same, from another source too. */
static __always_inline bool redirect_error_ipv6(struct __sk_buff *packet,
						const struct headers *found,
						const struct ipvs_address *source,
						const struct ipvs_address *destination)
{
	struct ipv6hdr *ip = header_at(packet, found->network, sizeof(*ip));
	struct ipvs_address source_before, destination_before;
	struct ends after = {.source = *source, .destination = *destination};
	__u32 difference;

	if (!ip)
		return false;
	copy_ipv6(&source_before, &ip->saddr);
	copy_ipv6(&destination_before, &ip->daddr);
	difference = fold_to_32(address_difference(&source_before, source, true) +
				address_difference(&destination_before, destination, true));
	/* ICMPv6's checksum covers the addresses too (RFC 4443, 2.3). */
	if (!change_pseudo_header(packet, found->transport + ICMP_CHECKSUM_AT, difference, 0, true))
		return false;
	return !bpf_skb_store_bytes(packet, found->network + offsetof(struct ipv6hdr, saddr),
				    &after.source, 2 * sizeof(after.source), 0);
}

#endif
