package sdk_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

// editing is a host that takes so many edits, and notes what it is asked.
type editing struct {
	knowing
	takes byte
	given [][]byte
	calls []string
}

func (h *editing) Foreign(name string, args []byte) ([]byte, abi.Status) {
	if name != "weir.edit" {
		return h.knowing.Foreign(name, args)
	}
	if byte(len(h.given)) == h.takes {
		return nil, abi.BadArgument
	}
	h.given = append(h.given, slices.Clone(args))
	return []byte{byte(len(h.given))}, abi.OK
}

func (h *editing) note(verb string, m abi.MapType, name, value string) abi.Status {
	h.calls = append(h.calls, strings.TrimSpace(fmt.Sprint(verb, " ", m, " ", name, " ", value)))
	return abi.OK
}

func (h *editing) ReplaceHeader(m abi.MapType, name, value string) abi.Status {
	return h.note("set", m, name, value)
}
func (h *editing) AddHeader(m abi.MapType, name, value string) abi.Status {
	return h.note("add", m, name, value)
}
func (h *editing) RemoveHeader(m abi.MapType, name string) abi.Status {
	return h.note("del", m, name, "")
}

// TestContinueNamesAnEdit: one that the host was told of, once; what it does not
// take is made by calls.
func TestContinueNamesAnEdit(t *testing.T) {
	var request, response, none sdk.HeaderEdit
	request.Del("x-a").Set("x-b", "1").Add("x-c", "2")
	response.Set("x-d", "3")
	handler := unheard{&probe{
		onRequest: func(r *sdk.Request) sdk.Action {
			if r.End {
				return r.Continue(&none)
			}
			return r.Continue(&request)
		},
		onResponse: func(r *sdk.Response) sdk.Action { return r.Continue(&response) },
	}}
	host := &editing{takes: 1}
	sandbox(t, host, handler, func(vm *sdk.VM) {
		for range 2 {
			want(t, "request", vm.OnRequestHeaders(2, false), 1<<16|light)
			want(t, "nothing to change", vm.OnRequestHeaders(3, true), sdk.Continue|light)
			want(t, "an edit too many", vm.OnResponseHeaders(2, true), sdk.Continue|light)
		}
	})
	if want := "\x02\x03\x00\x00\x00\x00\x00\x00\x00x-a" + "\x00\x03\x00\x00\x00\x01\x00\x00\x00x-b1" + "\x01\x03\x00\x00\x00\x01\x00\x00\x00x-c2"; len(host.given) != 1 || string(host.given[0]) != want {
		t.Errorf("the host was given %q", host.given)
	}
	if got := strings.Join(host.calls, ", "); got != "set 2 x-d 3, set 2 x-d 3" {
		t.Errorf("the host was asked to %s", got)
	}
}

// TestAnEditOfAnExchangeThatIsKept: State and edit have nothing to do with each other.
func TestAnEditOfAnExchangeThatIsKept(t *testing.T) {
	var edit sdk.HeaderEdit
	edit.Set("x-a", "1")
	handler := unheard{&probe{
		onRequest:  func(r *sdk.Request) sdk.Action { r.State = 1; return r.Continue(&edit) },
		onResponse: func(r *sdk.Response) sdk.Action { return r.Continue(&edit) },
	}}
	sandbox(t, &editing{takes: 9}, handler, func(vm *sdk.VM) {
		want(t, "request", vm.OnRequestHeaders(2, false), 1<<16)
		want(t, "response", vm.OnResponseHeaders(2, true), 1<<16|light)
	})
}

// TestAnEditThatIsExtended is another one.
func TestAnEditThatIsExtended(t *testing.T) {
	var edit sdk.HeaderEdit
	handler := unheard{&probe{onRequest: func(r *sdk.Request) sdk.Action {
		return r.Continue(edit.Add("x-a", "1"))
	}}}
	host := &editing{takes: 9}
	sandbox(t, host, handler, func(vm *sdk.VM) {
		want(t, "request", vm.OnRequestHeaders(2, true), 1<<16|light)
		want(t, "the next", vm.OnRequestHeaders(3, true), 2<<16|light)
	})
	if len(host.given) != 2 || len(host.given[1]) != 2*len(host.given[0]) {
		t.Errorf("the host was given %q", host.given)
	}
}

// TestEditsElsewhere: a host that does not know them sees calls.
func TestEditsElsewhere(t *testing.T) {
	var edit sdk.HeaderEdit
	edit.Del("x-a").Set("x-b", "1").Add("x-c", "2")
	p := start(t, &probe{
		onRequest:  func(r *sdk.Request) sdk.Action { return r.Continue(&edit) },
		onResponse: func(r *sdk.Response) sdk.Action { return r.Continue(&edit) },
	})
	for range 2 {
		x := p.Do(policytest.Exchange{
			Request:  policytest.Message{Header: policytest.Fields(":method", "GET", ":path", "/", "x-a", "0", "x-b", "0")},
			Response: policytest.Message{Header: policytest.Fields(":status", "200", "x-c", "0")},
		})
		if got := fmt.Sprint(x.Request.Header); got != "[{:method GET} {:path /} {x-b 1} {x-c 2}]" {
			t.Errorf("the request is %s", got)
		}
		if got := fmt.Sprint(x.Response.Header); got != "[{:status 200} {x-c 0} {x-b 1} {x-c 2}]" {
			t.Errorf("the response is %s", got)
		}
	}
}
