package wasm

import (
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// Higress's functions for policies that choose the endpoint, where the service's own
// balancer knows too little: by what the endpoints hold, or how long their queues are.

// endpointOf is what is told of an endpoint, as Higress writes it.
var endpointOf = map[bool][]byte{
	true:  []byte(`{"health_status":"Healthy"}`),
	false: []byte(`{"health_status":"Unhealthy"}`),
}

const maxEndpointAddress = 262 // a name of 255 bytes, a colon, a port, brackets

// choosing is the exchange that the guest acts for, if it may still choose where that
// goes; nil: it may not.
func (v *vm) choosing() *filter {
	f := v.shown()
	if f == nil || f.connection != nil || f.stage != stageRequestHead && f.stage != stageRequestBody {
		return nil
	}
	return f
}

// proxyGetUpstreamHosts returns pairs of an address and what is known of it.
func proxyGetUpstreamHosts(v *vm, s stack) abi.Status {
	f := v.choosing()
	if f == nil {
		return abi.BadArgument
	}
	if f.x.Endpoints == nil {
		return abi.NotFound
	}
	var list [][2][]byte
	f.x.Endpoints.Endpoints(func(address string, healthy bool) bool {
		list = append(list, [2][]byte{[]byte(address), endpointOf[healthy]})
		return true
	})
	if len(list) == 0 {
		return abi.NotFound
	}
	at := func(i int) (name, value []byte) { return list[i][0], list[i][1] }
	v.drawBytes(abi.PairsSize(len(list), at))
	v.scratch = abi.AppendPairs(v.scratch[:0], len(list), at)
	return v.hand(v.scratch, s.u32(0), s.u32(1))
}

// proxySetUpstreamHost has one endpoint asked first, until another is set; an empty
// address takes that back. Whether there is such an endpoint shows when it is asked:
// then, or when it does not answer and the route retries, the balancer chooses.
func proxySetUpstreamHost(v *vm, s stack) abi.Status {
	address, inside := v.read(s.u32(0), s.u32(1))
	if !inside {
		return abi.InvalidMemoryAccess
	}
	f := v.choosing()
	if f == nil || len(address) > maxEndpointAddress || len(address) > 0 && !visible(address) {
		return abi.BadArgument
	}
	v.drawBytes(len(address))
	f.x.Preferred = string(address)
	return abi.OK
}
