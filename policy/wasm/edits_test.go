package wasm

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// changes is a list of changes in hexadecimal, as the guest takes it: "set a b",
// "add a b" or "del a" each.
func changes(list ...string) string {
	var b []byte
	for _, change := range list {
		kind, rest, _ := strings.Cut(change, " ")
		name, value, _ := strings.Cut(rest, " ")
		b = append(b, map[string]byte{"set": 0, "add": 1, "del": 2}[kind])
		b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
		b = append(append(b, name...), value...)
	}
	return hex.EncodeToString(b)
}

// TestEdits: the guest keeps changes with its host, and names them beside an action.
func TestEdits(t *testing.T) {
	f := newFixture(t, Config{})
	const head = "GET shop.example /books?id=1"
	for i, test := range []struct {
		name   string
		do     string
		fields string
		body   []string
		want   string // the request's fields without x-do; "status N" of what was answered
	}{
		{name: "in their order", do: "request: edit " + changes("set x-a 1", "add X-A 2", "del x-b", "set x-c 3") + "; request: use 1",
			fields: "x-a: 0\nx-b: 0\nx-c: 0\nx-c: 0", want: "x-a: 1, x-c: 3, x-edit: 01 0, x-a: 2"},
		{name: "when the callback has returned", do: "request: edit " + changes("set x-a after") + "; request: use 1; request: set x-a before",
			want: "x-edit: 01 0, x-a: after"},
		{name: "one of several", do: "request: edit " + changes("set x-a 1") + "; request: edit " + changes("set x-b 2") + "; request: use 2",
			want: "x-edit: 02 0, x-b: 2"},
		{name: "none", do: "request: edit " + changes("set x-a 1"), want: "x-edit: 01 0"},
		{name: "of a head that is held", do: "request: edit " + changes("set x-a 1") + "; request: pause; request body: use 1",
			body: []string{"x"}, want: "x-edit: 01 0, x-a: 1"},
		{name: "not after an answer", do: "request: edit " + changes("set x-a 1") + "; request: reply 403 no; request: use 1", want: "status 403"},
		{name: "from a guest that has given none", do: "request: continue; request: use 1", want: ""},
		{name: "what would end a line does not", do: "request: edit " + changes("set x-a b\r\nc: d") + "; request: use 1", want: "x-edit: 01 0, x-a: b  c: d"},
		{name: "framing is the codec's", do: "request: edit " + changes("set transfer-encoding chunked", "add content-length 5", "del content-length") + "; request: use 1",
			fields: "content-length: 7", want: "x-edit: 01 0"},
		{name: "an empty list", do: "request: edit ; request: use 1", want: "x-edit: 01 0"},
		{name: "a pseudo-field is the guest's own affair", do: "request: edit " + changes("set x-a 1", "set :path /b"), want: "x-edit:  2"},
		{name: "so is the authority", do: "request: edit " + changes("set Host b"), want: "x-edit:  2"},
		{name: "a name that is none", do: "request: edit " + changes("del a(b"), want: "x-edit:  2"},
		{name: "a list that is broken", do: "request: edit 00010000000100000061", want: "x-edit:  3"},
		{name: "a kind that is none", do: "request: edit 030000000000000000", want: "x-edit:  3"},
	} {
		for _, config := range []string{fmt.Sprintf(`"none %d"`, i), light} {
			t.Run(test.name+" "+config, func(t *testing.T) {
				s := spec(config)
				s.Name = fmt.Sprint("p", i) // a VM of its own
				commands := test.do
				if config == light {
					commands = "light; " + commands
				}
				o := serve([]policy.Policy{f.make(s)}, message{fields: "x-do: " + commands + "\n" + test.fields, body: test.body}, message{})
				if o.err != nil {
					t.Fatal(o.err)
				}
				got := ""
				if o.request == "" {
					got = "status " + o.response[:3]
				} else {
					lines := strings.Split(strings.TrimPrefix(o.request, head), "\n")
					got = strings.Join(lines[2:], ", ") // without x-do
				}
				if got != test.want {
					t.Errorf("got %q\nwant %q", got, test.want)
				}
			})
		}
	}
}

func TestAnEditOfAnAnswer(t *testing.T) {
	c, _ := newFixture(t, Config{}).chain(light)
	edit := "request: edit " + changes("set x-a 1", "del server")
	o := serveChain(c, do("light; "+edit+"; response: use 1"), message{fields: "server: x"})
	if o.err != nil || o.response != "200\nx-a: 1" || strings.Contains(o.request, "x-a") {
		t.Errorf("%v, %q", o.err, o.response)
	}
}

// TestAnEditThatIsNotThere: it is the guest's fault, and its exchange fails as by
// any other of its faults.
func TestAnEditThatIsNotThere(t *testing.T) {
	c, p := newFixture(t, Config{}).chain("")
	o := serveChain(c, do("request: edit "+changes("set x-a 1")+"; request: use 2"), message{})
	var trap *Trap
	if !errors.As(o.err, &trap) || trap.Callback != "proxy_on_request_headers" {
		t.Errorf("got %v", o.err)
	}
	if s := p.Status(); s.Traps != 1 || s.VMs != 0 {
		t.Errorf("%+v", s)
	}
	if o := serveChain(c, do("request: set x-b 1"), message{}); o.err != nil || !strings.Contains(o.request, "x-b: 1") {
		t.Errorf("the next exchange: %v, %q", o.err, o.request)
	}
}

// give gives an idle VM an edit, as its guest would.
func give(t *testing.T, v *vm, list string) abi.Status {
	b, err := hex.DecodeString(list)
	if err != nil {
		t.Fatal(err)
	}
	v.tank.Set(1 << 30)
	_, status := addEdit(v, b)
	v.owed = 0
	return status
}

// TestEditsArePaidFor: by the callback that wants them, which fails before anything
// is changed when it cannot.
func TestEditsArePaidFor(t *testing.T) {
	const long, many = 16_000, 1000
	dear := long * many / 4
	list := changes("set x-a 1", "del "+strings.Repeat("n", long))
	use := do("light; request: set x-set 1; request: use 1", strings.Repeat("x-many: 1\n", many))
	f := newFixture(t, Config{})
	for name, fuel := range map[string]uint64{"rich": uint64(2 * dear), "poor": uint64(dear - 1)} {
		t.Run(name, func(t *testing.T) {
			s := spec(light)
			s.Name, s.Fuel, s.FailureMode = name, fuel, weirv1.PolicySpec_OPEN
			p := f.make(s)
			if status := give(t, p.pool.vms[0], list); status != abi.OK {
				t.Fatal(status)
			}
			o := serve([]policy.Policy{p}, use, message{})
			if o.err != nil {
				t.Fatal(o.err)
			}
			made, kept := strings.Contains(o.request, "x-a: 1"), strings.Contains(o.request, "x-set: ")
			status := p.Status()
			if rich := name == "rich"; made != rich || kept != rich || (status.OutOfFuel == 0) != rich {
				t.Errorf("the edit is made: %v; what came before it is kept: %v; %+v", made, kept, status)
			}
			if status.DearestExchange < uint64(dear) {
				t.Errorf("it costs %d, which is less than %d", status.DearestExchange, dear)
			}
		})
	}
}

func TestTheHostKeepsSoManyEdits(t *testing.T) {
	c, _ := newFixture(t, Config{}).chain(light)
	one := "; request: edit " + changes("set x-a 1")
	o := serveChain(c, do("light"+strings.Repeat(one, maxEdits)), message{})
	if o.err != nil || !strings.Contains(o.request, "x-edit: ff 0") {
		t.Fatalf("%v, %q", o.err, o.request)
	}
	if o := serveChain(c, do("light"+one), message{}); o.err != nil || !strings.Contains(o.request, "x-edit:  2") {
		t.Errorf("%v, %q", o.err, o.request)
	}
}

// TestEditsAreBounded by their bytes, and by what a head may grow to.
func TestEditsAreBounded(t *testing.T) {
	p := newFixture(t, Config{}).make(spec(light))
	v := p.pool.vms[0]
	large := changes("set x-a " + strings.Repeat("x", maxEditBytes/2))
	for i, want := range []abi.Status{abi.OK, abi.BadArgument} {
		if status := give(t, v, large); status != want {
			t.Errorf("edit %d: status %d", i+1, status)
		}
	}
	c := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
	full := strings.Repeat("x-many: 1\n", maxFields-1) // and x-do
	if o := serveChain(c, do("light; request: use 1", full), message{}); o.err != nil || strings.Contains(o.request, "x-a: ") {
		t.Errorf("too many fields: %v", o.err)
	}
}
