package wasm

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"time"

	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Properties are asked for by a path whose parts are separated by zero bytes.
// The names are Envoy's, since plugins know those; Weir's own are below "weir".
// Numbers, times and durations are 64-bit little-endian (nanoseconds for the
// latter two), the rest is text.
//
//	request.{path,url_path,query,host,scheme,method,headers.NAME,referer,useragent,
//	         id,protocol,time,duration,size,total_size}
//	response.{code,code_details,flags,headers.NAME,trailers.NAME,grpc_status,size,total_size}
//	connection.requested_server_name (of one that carries no HTTP)
//	source.{address,port}  destination.{address,port}  upstream.address
//	plugin_name  plugin_root_id  plugin_vm_id  route_name  cluster_name  xds.{route_name,cluster_name}
//	weir.{tenant,policy,plugin,request_id,route,rule,service,endpoint,revision}
//	weir.consumer.{app,organization,credential,subscription,plan}, once it is known who calls
//
// What is not in this list is what a policy has left with set_property. Of
// connection.* nothing else is known yet: the exchange does not carry it.

func proxyGetProperty(v *vm, s stack) abi.Status {
	path, inside := v.read(s.u32(0), s.u32(1))
	if !inside {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(path))
	value, ok := v.property(path)
	if !ok {
		return abi.NotFound
	}
	return v.give(value, s.u32(2), s.u32(3))
}

func proxySetProperty(v *vm, s stack) abi.Status {
	path, a := v.read(s.u32(0), s.u32(1))
	value, b := v.read(s.u32(2), s.u32(3))
	if !a || !b {
		return abi.InvalidMemoryAccess
	}
	f := v.shown()
	if f == nil || len(path) == 0 || !f.spend(len(path)+len(value)) {
		return abi.NotFound
	}
	v.drawBytes(len(path) + len(value))
	if !f.x.SetNote(path, value) {
		return abi.NotFound
	}
	return abi.OK
}

// property finds a value. It may be in v.scratch.
func (v *vm) property(path []byte) ([]byte, bool) {
	first, rest := part(path)
	v.scratch = v.scratch[:0]
	spec := &v.policy.spec
	switch text(first) {
	case "plugin_name":
		return v.textOf(spec.Name)
	case "plugin_root_id":
		return v.scratch, true // one root, without a name
	case "plugin_vm_id":
		return v.textOf(spec.Tenant)
	case "weir":
		if text(rest) == "plugin" { // which a guest may want to know while it is configured
			return v.textOf(spec.Plugin)
		}
	}
	f := v.shown()
	if f == nil {
		return nil, false
	}
	x := f.x
	switch text(first) {
	case "request":
		return v.requestProperty(x, rest)
	case "response":
		return v.responseProperty(x, rest)
	case "source":
		return v.address(x.Client, rest)
	case "destination":
		return v.address(x.Local, rest)
	case "connection":
		if f.connection != nil && text(rest) == "requested_server_name" && len(x.Request.Authority) > 0 {
			return x.Request.Authority, true
		}
	case "upstream":
		if text(rest) == "address" && x.Endpoint != "" {
			return v.textOf(x.Endpoint)
		}
	case "weir":
		return v.ownProperty(x, rest)
	case "xds":
		first = rest
	}
	switch text(first) {
	case "route_name":
		return v.textOf(x.Route)
	case "cluster_name":
		return v.textOf(x.Service)
	}
	return x.Note(path)
}

// part cuts a path after its first part.
func part(path []byte) (first, rest []byte) {
	first, rest, _ = bytes.Cut(path, zero)
	return first, rest
}

var zero = []byte{0}

func (v *vm) textOf(s string) ([]byte, bool) {
	v.scratch = append(v.scratch, s...)
	return v.scratch, true
}

func (v *vm) number(n int64) ([]byte, bool) {
	v.scratch = binary.LittleEndian.AppendUint64(v.scratch, uint64(n))
	return v.scratch, true
}

func (v *vm) requestProperty(x *exchange.Exchange, path []byte) ([]byte, bool) {
	r := &x.Request
	v.draw(int64(r.Fields.Len()))
	name, rest := part(path)
	switch text(name) {
	case "path":
		return r.Path, true
	case "url_path":
		v.drawBytes(len(r.Path))
		before, _, _ := bytes.Cut(r.Path, question)
		return before, true
	case "query":
		v.drawBytes(len(r.Path))
		_, after, _ := bytes.Cut(r.Path, question)
		return after, true
	case "host":
		return r.Authority, true
	case "scheme":
		return r.Scheme, true
	case "method":
		return r.Method, true
	case "headers":
		v.drawSearch(rest, r.Fields.Len())
		return field(&r.Fields, rest)
	case "referer":
		return field(&r.Fields, name)
	case "useragent":
		return field(&r.Fields, nameUserAgent)
	case "id":
		return x.ID, len(x.ID) > 0
	case "protocol":
		return v.textOf(x.Protocol.String())
	case "time":
		return v.number(x.Start.UnixNano())
	case "duration":
		return v.number(int64(time.Since(x.Start)))
	case "size":
		return v.number(size(&r.Fields, r.Body))
	case "total_size":
		return v.number(size(&r.Fields, r.Body) + sizeOf(&r.Fields) + int64(len(r.Method)+len(r.Path)+len(r.Authority)))
	}
	return nil, false
}

var (
	question      = []byte{'?'}
	nameUserAgent = []byte("user-agent")
)

func (v *vm) responseProperty(x *exchange.Exchange, path []byte) ([]byte, bool) {
	if v.effective.stage < stageResponseHead || x.Response.Status == 0 {
		return nil, false
	}
	r := &x.Response
	v.draw(int64(r.Fields.Len() + r.Trailers.Len()))
	name, rest := part(path)
	switch text(name) {
	case "code":
		return v.number(int64(r.Status))
	case "code_details":
		return v.textOf(x.Details)
	case "flags":
		return v.number(0)
	case "headers":
		v.drawSearch(rest, r.Fields.Len())
		return field(&r.Fields, rest)
	case "trailers":
		v.drawSearch(rest, r.Trailers.Len())
		return field(&r.Trailers, rest)
	case "grpc_status":
		return v.grpcStatus(r)
	case "size":
		return v.number(size(&r.Fields, r.Body))
	case "total_size":
		return v.number(size(&r.Fields, r.Body) + sizeOf(&r.Fields))
	}
	return nil, false
}

// maxStatusDigits is what a 32-bit number is written with at most.
const maxStatusDigits = 11

func (v *vm) grpcStatus(r *exchange.Response) ([]byte, bool) {
	value := r.Trailers.Get("grpc-status")
	if value == nil {
		value = r.Fields.Get("grpc-status")
	}
	if len(value) > maxStatusDigits {
		return nil, false // nor is it worth the copy that the error keeps
	}
	n, err := strconv.ParseInt(text(value), 10, 32)
	if err != nil {
		return nil, false
	}
	return v.number(n)
}

func (v *vm) address(a netip.AddrPort, name []byte) ([]byte, bool) {
	if !a.IsValid() {
		return nil, false
	}
	switch text(name) {
	case "address":
		v.scratch = a.AppendTo(v.scratch)
		return v.scratch, true
	case "port":
		return v.number(int64(a.Port()))
	}
	return nil, false
}

func (v *vm) ownProperty(x *exchange.Exchange, name []byte) ([]byte, bool) {
	spec := &v.policy.spec
	first, rest := part(name)
	if text(first) == "consumer" {
		return v.consumerProperty(x.Consumer, rest)
	}
	switch text(name) {
	case "tenant":
		return v.textOf(spec.Tenant)
	case "policy":
		return v.textOf(spec.Name)
	case "request_id":
		return x.ID, true
	case "route":
		return v.textOf(x.Route)
	case "rule":
		return v.textOf(x.Rule)
	case "service":
		return v.textOf(x.Service)
	case "endpoint":
		return v.textOf(x.Endpoint)
	case "revision":
		return v.number(int64(x.Revision))
	}
	return nil, false
}

// consumerProperty tells who calls, which a policy of an Api has found out.
func (v *vm) consumerProperty(c *exchange.Consumer, name []byte) ([]byte, bool) {
	if c == nil {
		return nil, false
	}
	var value string
	switch text(name) {
	case "app":
		value = c.App
	case "organization":
		value = c.Organization
	case "credential":
		value = c.Credential
	case "subscription":
		value = c.Subscription
	case "plan":
		value = c.Plan
	}
	if value == "" {
		return nil, false
	}
	return v.textOf(value)
}

func field(fields *exchange.Fields, name []byte) ([]byte, bool) {
	value := fields.Get(text(name))
	return value, value != nil
}

// size is a body's length as far as it is known.
func size(fields *exchange.Fields, body exchange.Body) int64 {
	if n, err := strconv.ParseInt(text(fields.Get("content-length")), 10, 64); err == nil {
		return n
	}
	if body != nil {
		return max(body.Length(), 0)
	}
	return 0
}

func sizeOf(fields *exchange.Fields) (n int64) {
	for i := range fields.Len() {
		f := fields.At(i)
		n += int64(len(f.Name) + len(f.Value))
	}
	return n
}
