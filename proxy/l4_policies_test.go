package proxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// guarded starts an edge whose connections without HTTP the WASM host's test plugin sees:
// see its connection.go for what it does.
func guarded(t *testing.T, listener *weirv1.Listener, more ...resource.Message) (*edge, *journal) {
	t.Helper()
	j := new(journal)
	users := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "known") })
	e := startCallerWith(t, j, []*weirv1.ServiceGrant{{Name: "users"}}, append([]resource.Message{
		gateway(listener), service("users", users), service("db", parrot(t, "db"))}, more...)...)
	return e, j
}

// A policy sees what client and service say, changes it, holds it back until a service
// has answered, and closes the connection.
func TestPoliciesOfTCP(t *testing.T) {
	e, j := guarded(t, tcpListener(), rawRoute("r", "raw", "db"))
	for _, c := range []struct{ name, say, hear, details string }{
		{"both ways are changed", "hello\n", "DB\n> HELLO\nGOODBYE\n", ""},
		{"the end comes with what was held", "hel", "DB\n> HELGOODBYE\n", ""},
		{"a service is asked, and answers", "ask answer: change 2 approved; answer: go-stream 2\n", "DB\nAPPROVED\nGOODBYE\n", ""},
		{"a service says no", "ask answer: close-stream 2\n", "DB\n", "policy_closed"},
		{"the policy closes it", "close\n", "DB\n", "policy_closed"},
		{"a property", "property weir/service\n", "DB\nDEFAULT/DB 0\nGOODBYE\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, e.addr)
			// The service's name comes first, however soon the policy ends it.
			first, err := conn.in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, c.say)
			if c.details == "" {
				conn.CloseWrite()
			}
			rest, err := io.ReadAll(conn.in)
			if first+string(rest) != c.hear || err != nil {
				t.Errorf("heard %q, %v", first+string(rest), err)
			}
			line := j.await(t)
			if details, _ := line["details"].(string); details != c.details || line["error"] != nil {
				t.Errorf("the log says %v", line)
			}
		})
	}
}

// A policy's failure breaks the connection off, or is passed by, as the policy says.
func TestPoliciesOfTCPThatFail(t *testing.T) {
	for mode, want := range map[weirv1.PolicySpec_FailureMode]string{
		weirv1.PolicySpec_CLOSED: "policy_failed", weirv1.PolicySpec_OPEN: "",
	} {
		t.Run(mode.String(), func(t *testing.T) {
			e, j := guarded(t, tcpListener(), rawRoute("r", "raw", "db"))
			p := callerPolicy(nil)
			p.Spec.FailureMode = mode
			e.apply(p)
			conn := dial(t, e.addr)
			if _, err := conn.in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, "trap\n")
			conn.CloseWrite()
			heard, err := io.ReadAll(conn.in)
			if want == "" && string(heard) != "trap\ngoodbye\n" || (err != nil) != (want != "") {
				t.Errorf("heard %q, %v", heard, err)
			}
			if details, _ := j.await(t)["details"].(string); details != want {
				t.Errorf("the log says %q", details)
			}
		})
	}
}

// Where TLS ends here a policy sees what is inside; where it passes it sees the bytes,
// and both times the name that the client asks for.
func TestPoliciesOfTLS(t *testing.T) {
	e, _ := guarded(t, tlsListener("raw", "", weirv1.ListenerTLS_TERMINATE, "own"), certificate(t, "own", "db.example"), rawRoute("r", "raw", "db"))
	c, err := tls.Dial("tcp", e.addr, &tls.Config{InsecureSkipVerify: true, ServerName: "db.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	if name, err := in.ReadString('\n'); name != "DB\n" || err != nil {
		t.Fatalf("%q, %v", name, err)
	}
	// Two lines with a pause, so that a read was ended to let the first go.
	fmt.Fprintln(c, "ask answer: change 2 approved; answer: go-stream 2")
	for _, want := range []string{"APPROVED\n", "DB.EXAMPLE 0\n", "> HELLO\n"} {
		if line, err := in.ReadString('\n'); line != want || err != nil {
			t.Fatalf("heard %q, %v; want %q", line, err, want)
		}
		fmt.Fprintln(c, map[string]string{"APPROVED\n": "property connection/requested_server_name", "DB.EXAMPLE 0\n": "hello"}[want])
	}

	passed, _ := guarded(t, tlsListener("raw", "", weirv1.ListenerTLS_PASSTHROUGH), service("inner", securedParrot(t, "db.example")),
		rawRoute("r", "raw", "inner"))
	passed.apply(passing("both"))
	inner, err := tls.Dial("tcp", passed.addr, &tls.Config{InsecureSkipVerify: true, ServerName: "db.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	if heard := talk(t, inner, "hello\n"); heard != "db.example\nhello\ngoodbye\n" {
		t.Errorf("heard %q", heard)
	}
}

// passing is the policy under which the client's bytes pass as they are, or both sides'.
func passing(what string) *weirv1.Policy {
	p := callerPolicy(nil)
	p.Spec.Config, _ = structpb.NewStruct(map[string]any{"do": "pass " + what})
	return p
}

// Large bodies each way, at once, with half a close: nothing is lost and nobody waits for
// anybody.
func TestPoliciesOfTCPUnderLoad(t *testing.T) {
	e, _ := guarded(t, tcpListener(), rawRoute("r", "raw", "db"))
	e.apply(passing("client"))
	conn := dial(t, e.addr)
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	const lines = 20_000
	line := strings.Repeat("x", 99) + "\n"
	go func() {
		for range lines {
			if _, err := io.WriteString(conn, line); err != nil {
				return
			}
		}
		conn.CloseWrite()
	}()
	heard, err := io.ReadAll(conn.in)
	if n := strings.Count(string(heard), strings.ToUpper(line[:99])); n != lines || err != nil {
		t.Errorf("%d lines of %d, %v", n, lines, err)
	}
}
