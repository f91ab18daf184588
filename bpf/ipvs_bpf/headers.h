/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a packet's headers say: its flow, and where the headers are.
 */
#ifndef MESHACCEL_IPVS_HEADERS_H
#define MESHACCEL_IPVS_HEADERS_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>

#include "context.h"
#include "flows.h"

/* Of the IPv4 header's frag_off, and of the IPv6 fragment header's. */
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET_MASK 0x1fff
#define IPV6_MORE_FRAGMENTS 1
#define IPV6_OFFSET_MASK 0xfff8
#define IPV6_EXTENSION_HEADERS 4

/* Errors of ICMP (RFC 792), by their types. */
#define UNREACHABLE 3
#define TIME_EXCEEDED 11
#define PARAMETER_PROBLEM 12
/* Those of ICMPv6 (RFC 4443) that are about a packet: 1 to 4. */
#define LAST_IPV6_ERROR 4

/* The flags of a TCP header, its 14th byte. */
#define TCP_FLAGS_AT 13
#define TCP_FINISH 1
#define TCP_SYNCHRONIZE 2
#define TCP_RESET 4
#define TCP_ACKNOWLEDGE 16

enum content {
	CONTENT_OTHER,
	/* With the ports: the first fragment too. */
	CONTENT_FLOW,
	/* A fragment behind the first: no ports. */
	CONTENT_FRAGMENT,
	/* An ICMP error; the flow is that of the packet it is about, as on the wire. */
	CONTENT_ERROR,
};

struct headers {
	struct ipvs_flow_key flow;
	/* Offsets from the packet's data, in bytes. */
	__u32 network;
	__u32 transport;
	/* In bytes; 0 where it does not matter. */
	__u32 transport_length;
	__u32 identification;
	bool fragmented;
	__u8 tcp_flags;
	__u8 hops_left;
};

struct ports {
	__be16 source;
	__be16 destination;
};

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 identification;
};

/* ICMP's and ICMPv6's, of an error. */
struct error_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 rest;
};

struct extension_header {
	__u8 next;
	/* In units of eight bytes, without the first. */
	__u8 length;
};

/* No header of ours begins further in: 14 bytes of Ethernet, and what may stand before TCP. */
#define LARGEST_OFFSET 0x3fff

/*
 * Returns a header, of a packet that has all of it, or 0. The compiler knows how
 * large an offset can be; the verifier has to see it checked, so it may not.
 */
static __always_inline void *header_at(struct __sk_buff *packet, __u32 offset, __u32 length)
{
	void *start;

	asm volatile("" : "+r"(offset));
	if (offset > LARGEST_OFFSET)
		return 0;
	start = (void *)READ_MEMBER(packet, data) + offset;
	if (start + length <= (void *)READ_MEMBER(packet, data_end))
		return start;
	if (bpf_skb_pull_data(packet, offset + length))
		return 0;
	start = (void *)READ_MEMBER(packet, data) + offset;
	return start + length <= (void *)READ_MEMBER(packet, data_end) ? start : 0;
}

static __always_inline void map_ipv4(struct ipvs_address *address, __be32 ipv4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = MAPPED_PREFIX;
	address->word[3] = ipv4;
}

static __always_inline void copy_ipv6(struct ipvs_address *address, const struct in6_addr *ipv6)
{
	for (__u32 i = 0; i < 4; i++)
		address->word[i] = ipv6->in6_u.u6_addr32[i];
}

static __always_inline bool same_address(const struct ipvs_address *one,
					 const struct ipvs_address *other)
{
	return one->word[3] == other->word[3] && one->word[2] == other->word[2] &&
	       one->word[1] == other->word[1] && one->word[0] == other->word[0];
}

static __always_inline bool is_begin(const struct headers *found)
{
	return found->flow.protocol == IPPROTO_UDP ||
	       (found->tcp_flags & (TCP_SYNCHRONIZE | TCP_ACKNOWLEDGE)) == TCP_SYNCHRONIZE;
}

static __always_inline void take_ports(struct headers *found, const struct ports *ports)
{
	found->flow.source_port = ports->source;
	found->flow.destination_port = ports->destination;
}

/* The flow of the packet that an ICMP error carries behind its eight bytes, without options. */
static __always_inline enum content parse_error_ipv4(struct __sk_buff *packet,
						     struct headers *found)
{
	struct {
		struct error_header error;
		struct iphdr ip;
		struct ports ports;
	} *about = header_at(packet, found->transport, sizeof(*about));

	if (!about)
		return CONTENT_OTHER;
	if (about->error.type != UNREACHABLE && about->error.type != TIME_EXCEEDED &&
	    about->error.type != PARAMETER_PROBLEM)
		return CONTENT_OTHER;
	if (about->ip.ihl != 5 || about->ip.frag_off & bpf_htons(IPV4_OFFSET_MASK))
		return CONTENT_OTHER;
	if (about->ip.protocol != IPPROTO_TCP && about->ip.protocol != IPPROTO_UDP)
		return CONTENT_OTHER;
	map_ipv4(&found->flow.source, about->ip.saddr);
	map_ipv4(&found->flow.destination, about->ip.daddr);
	found->flow.protocol = about->ip.protocol;
	take_ports(found, &about->ports);
	return CONTENT_ERROR;
}

static __always_inline enum content parse_error_ipv6(struct __sk_buff *packet,
						     struct headers *found)
{
	struct {
		struct error_header error;
		struct ipv6hdr ip;
		struct ports ports;
	} *about = header_at(packet, found->transport, sizeof(*about));

	if (!about || !about->error.type || about->error.type > LAST_IPV6_ERROR)
		return CONTENT_OTHER;
	if (about->ip.nexthdr != IPPROTO_TCP && about->ip.nexthdr != IPPROTO_UDP)
		return CONTENT_OTHER;
	copy_ipv6(&found->flow.source, &about->ip.saddr);
	copy_ipv6(&found->flow.destination, &about->ip.daddr);
	found->flow.protocol = about->ip.nexthdr;
	take_ports(found, &about->ports);
	return CONTENT_ERROR;
}

static __always_inline enum content parse_transport(struct __sk_buff *packet, struct headers *found,
						    const bool ipv6)
{
	if (found->flow.protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = header_at(packet, found->transport, sizeof(*tcp));

		if (!tcp)
			return CONTENT_OTHER;
		take_ports(found, (struct ports *)tcp);
		found->tcp_flags = ((__u8 *)tcp)[TCP_FLAGS_AT];
		found->transport_length = tcp->doff * 4;
		return CONTENT_FLOW;
	}
	if (found->flow.protocol == IPPROTO_UDP) {
		struct udphdr *udp = header_at(packet, found->transport, sizeof(*udp));

		if (!udp)
			return CONTENT_OTHER;
		take_ports(found, (struct ports *)udp);
		found->transport_length = sizeof(*udp);
		return CONTENT_FLOW;
	}
	if (!ipv6 && found->flow.protocol == IPPROTO_ICMP)
		return parse_error_ipv4(packet, found);
	if (ipv6 && found->flow.protocol == IPPROTO_ICMPV6)
		return parse_error_ipv6(packet, found);
	return CONTENT_OTHER;
}

static __always_inline enum content parse_ipv4(struct __sk_buff *packet, struct headers *found)
{
	struct iphdr *ip = header_at(packet, found->network, sizeof(*ip));
	__u16 fragment;

	if (!ip || ip->ihl < 5)
		return CONTENT_OTHER;
	found->transport = found->network + ip->ihl * 4;
	found->flow.protocol = ip->protocol;
	found->hops_left = ip->ttl;
	map_ipv4(&found->flow.source, ip->saddr);
	map_ipv4(&found->flow.destination, ip->daddr);
	fragment = bpf_ntohs(ip->frag_off);
	found->fragmented = fragment & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK);
	found->identification = ip->id;
	if (fragment & IPV4_OFFSET_MASK)
		return CONTENT_FRAGMENT;
	return parse_transport(packet, found, false);
}

/*
 * Steps over what may stand before TCP, UDP and ICMPv6 (RFC 8200, 4.1). Others
 * than these headers, and routing headers, make a packet none of ours.
 */
static __always_inline enum content skip_extension_headers(struct __sk_buff *packet,
							   struct headers *found)
{
	for (__u32 i = 0; i < IPV6_EXTENSION_HEADERS; i++) {
		struct extension_header *extension;

		if (found->flow.protocol == IPPROTO_FRAGMENT) {
			struct fragment_header *fragment =
				header_at(packet, found->transport, sizeof(*fragment));
			__u16 offset;

			if (!fragment)
				return CONTENT_OTHER;
			offset = bpf_ntohs(fragment->offset);
			found->fragmented = offset & (IPV6_MORE_FRAGMENTS | IPV6_OFFSET_MASK);
			found->identification = fragment->identification;
			found->flow.protocol = fragment->next;
			found->transport += sizeof(*fragment);
			if (offset & IPV6_OFFSET_MASK)
				return CONTENT_FRAGMENT;
			continue;
		}
		if (found->flow.protocol != IPPROTO_HOPOPTS &&
		    found->flow.protocol != IPPROTO_DSTOPTS)
			return CONTENT_FLOW;
		extension = header_at(packet, found->transport, sizeof(*extension));
		if (!extension)
			return CONTENT_OTHER;
		found->flow.protocol = extension->next;
		found->transport += 8 + extension->length * 8;
	}
	return CONTENT_FLOW;
}

static __always_inline enum content parse_ipv6(struct __sk_buff *packet, struct headers *found)
{
	struct ipv6hdr *ip = header_at(packet, found->network, sizeof(*ip));

	if (!ip)
		return CONTENT_OTHER;
	found->transport = found->network + sizeof(*ip);
	found->flow.protocol = ip->nexthdr;
	found->hops_left = ip->hop_limit;
	copy_ipv6(&found->flow.source, &ip->saddr);
	copy_ipv6(&found->flow.destination, &ip->daddr);
	if (ip->nexthdr != IPPROTO_TCP && ip->nexthdr != IPPROTO_UDP &&
	    ip->nexthdr != IPPROTO_ICMPV6) {
		enum content content = skip_extension_headers(packet, found);

		if (content != CONTENT_FLOW)
			return content;
	}
	return parse_transport(packet, found, true);
}

/* Reads a packet's headers; `network` is where they begin: 14 behind Ethernet's. */
static __always_inline enum content parse(struct __sk_buff *packet, struct headers *found,
					  __u32 network, __u8 point, const bool ipv6)
{
	*found = (struct headers){.network = network, .flow.point = point};
	return ipv6 ? parse_ipv6(packet, found) : parse_ipv4(packet, found);
}

/* The flow that goes the other way. */
static __always_inline struct ipvs_flow_key reversed(const struct ipvs_flow_key *flow, __u8 point)
{
	return (struct ipvs_flow_key){
		.source = flow->destination,
		.destination = flow->source,
		.source_port = flow->destination_port,
		.destination_port = flow->source_port,
		.protocol = flow->protocol,
		.point = point,
	};
}

#endif
