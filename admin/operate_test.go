package admin_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/admin"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

func (a *api) status(t *testing.T) *weirv1.ClusterStatus {
	t.Helper()
	res, err := a.operator.GetStatus(t.Context(), &weirv1.ClusterServiceGetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetStatus()
}

func requireCode(t *testing.T, err error, code connect.Code, words string) {
	t.Helper()
	if connect.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v, want %s with %q", err, code, words)
	}
}

func TestMembersGoAndLead(t *testing.T) {
	a := start(t, nil)
	if s := a.status(t); s.GetLeader() != "one" || len(s.GetMembers()) != 3 || !s.GetMajority() {
		t.Fatalf("got %v", s)
	}
	done, err := a.operator.TransferLeadership(t.Context(), &weirv1.TransferLeadershipRequest{To: "two"})
	if err != nil || done.GetLeader() != "two" || a.status(t).GetLeader() != "two" {
		t.Errorf("got %v, %v", done, err)
	}
	_, err = a.operator.TransferLeadership(t.Context(), &weirv1.TransferLeadershipRequest{To: "nine"})
	requireCode(t, err, connect.CodeNotFound, `there is no member "nine"`)

	remove := func(name string, force bool) error {
		_, err := a.operator.RemoveMember(t.Context(), &weirv1.RemoveMemberRequest{Name: name, Force: force})
		return err
	}
	requireCode(t, remove("", false), connect.CodeInvalidArgument, "which member")
	requireCode(t, remove("nine", false), connect.CodeNotFound, `there is no member "nine"`)
	if err := remove("three", false); err != nil {
		t.Error(err)
	}
	requireCode(t, remove("two", false), connect.CodeFailedPrecondition, "no majority")
	if err := remove("two", true); err != nil || len(a.status(t).GetMembers()) != 1 {
		t.Errorf("got %v, %v", err, a.status(t))
	}
	if log := a.log.String(); !strings.Contains(log, "member removed") || !strings.Contains(log, "actor=loopback") {
		t.Errorf("the log does not tell: %s", log)
	}
}

func TestProxiesGo(t *testing.T) {
	a := start(t, nil)
	a.proxies.Set(&weirv1.ProxyStatus{Name: "e1"}, &weirv1.ProxyStatus{Name: "books-1"})
	remove := func(name string) error {
		_, err := a.operator.RemoveProxy(t.Context(), &weirv1.RemoveProxyRequest{Name: name})
		return err
	}
	requireCode(t, remove(""), connect.CodeInvalidArgument, "which proxy")
	requireCode(t, remove("e9"), connect.CodeNotFound, `there is no edge or sidecar "e9"`)
	if err := remove("books-1"); err != nil {
		t.Error(err)
	}
	if left, _ := a.proxies.Statuses(); len(left) != 1 || left[0].GetName() != "e1" {
		t.Errorf("there are %v", left)
	}
	if log := a.log.String(); !strings.Contains(log, "proxy removed") || !strings.Contains(log, "proxy=books-1") {
		t.Errorf("the log does not tell: %s", log)
	}
}

// backup reads a whole backup.
func (a *api) backup(t *testing.T, req *weirv1.BackupRequest) (*weirv1.BackupInfo, []byte, error) {
	t.Helper()
	stream, err := a.operator.Backup(t.Context(), req)
	if err != nil {
		return nil, nil, err
	}
	defer stream.Close()
	first, err := stream.Receive()
	if err != nil {
		return nil, nil, err
	}
	var content []byte
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return first.GetInfo(), content, nil
		}
		if err != nil {
			return nil, nil, err
		}
		content = append(content, m.GetChunk()...)
	}
}

// restore sends options, when there are some, and content in small pieces.
func (a *api) restore(t *testing.T, options *weirv1.RestoreOptions, content []byte) (*weirv1.RestoreResponse, error) {
	t.Helper()
	stream, err := a.operator.Restore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send := func(m *weirv1.RestoreRequest) bool { return stream.Send(m) == nil }
	ok := options == nil || send(&weirv1.RestoreRequest{Part: &weirv1.RestoreRequest_Options{Options: options}})
	for piece := max(100, len(content)/1000); ok && len(content) > 0; {
		n := min(len(content), piece)
		ok = send(&weirv1.RestoreRequest{Part: &weirv1.RestoreRequest_Chunk{Chunk: content[:n]}})
		content = content[n:]
	}
	return stream.CloseAndReceive()
}

func TestBackupAndRestore(t *testing.T) {
	a := start(t, nil)
	a.apply(t, shop)
	info, content, err := a.backup(t, &weirv1.BackupRequest{RequireCurrent: true})
	if err != nil || info.GetStale() || info.GetMember() != "one" || info.GetRevision() == 0 || len(content) == 0 {
		t.Fatalf("got %v, %d bytes, %v", info, len(content), err)
	}
	_, err = a.restore(t, &weirv1.RestoreOptions{}, content)
	requireCode(t, err, connect.CodeFailedPrecondition, "would be replaced by the backup (resources: 3)")
	_, err = a.restore(t, nil, content)
	requireCode(t, err, connect.CodeInvalidArgument, "options: is required in the first message")
	_, err = a.restore(t, &weirv1.RestoreOptions{Force: true}, content[:len(content)-1])
	requireCode(t, err, connect.CodeInvalidArgument, "the backup is damaged")

	empty := start(t, nil)
	done, err := empty.restore(t, &weirv1.RestoreOptions{}, content)
	if err != nil || done.GetRevision() != info.GetRevision() {
		t.Fatalf("got %v, %v", done, err)
	}
	if _, err := empty.Get(t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "Route", Name: "books"}}); err != nil {
		t.Error(err)
	}
	if _, err := empty.restore(t, &weirv1.RestoreOptions{Force: true}, content); err != nil {
		t.Error(err)
	}
}

// A member that has lost the others answers by itself what it can, marked as
// what it is, and says of the rest why it cannot.
func TestWithoutAMajority(t *testing.T) {
	a := start(t, nil)
	a.apply(t, shop)
	a.servers.Lose(3 * time.Minute)
	if s := a.status(t); s.GetMajority() || s.GetReachableVoters() != 1 {
		t.Errorf("got %v", s)
	}
	ref := &weirv1.ResourceRef{Kind: "Route", Name: "books"}
	got, err := a.Get(t.Context(), &weirv1.GetRequest{Ref: ref, Stale: true})
	if err != nil || got.GetRevision() == 0 || got.GetStaleness().AsDuration() != 3*time.Minute {
		t.Errorf("got %v, %v", got, err)
	}
	list, err := a.List(t.Context(), &weirv1.ListRequest{Stale: true})
	if err != nil || len(list.GetResources()) != 3 || list.GetStaleness().AsDuration() != 3*time.Minute {
		t.Errorf("got %v, %v", list, err)
	}
	info, _, err := a.backup(t, &weirv1.BackupRequest{})
	if err != nil || !info.GetStale() || info.GetStaleness().AsDuration() != 3*time.Minute {
		t.Errorf("got %v, %v", info, err)
	}
	doctor, err := a.operator.Doctor(t.Context(), &weirv1.DoctorRequest{})
	if err != nil || worst(doctor) != weirv1.DoctorCheck_FAIL {
		t.Errorf("got %v, %v", doctor, err)
	}
	const why = "the cluster cannot decide now (no leader: 1 of 3 members reachable): nothing was done"
	_, err = a.Get(t.Context(), &weirv1.GetRequest{Ref: ref})
	requireCode(t, err, connect.CodeUnavailable, why)
	_, err = a.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{ref}})
	requireCode(t, err, connect.CodeUnavailable, why)
	_, _, err = a.backup(t, &weirv1.BackupRequest{RequireCurrent: true})
	requireCode(t, err, connect.CodeUnavailable, why)
	_, err = a.restore(t, &weirv1.RestoreOptions{Force: true}, []byte("x"))
	requireCode(t, err, connect.CodeUnavailable, why)
}

func worst(d *weirv1.DoctorResponse) (result weirv1.DoctorCheck_Result) {
	for _, c := range d.GetChecks() {
		result = max(result, c.GetResult())
	}
	return result
}

func TestJoinTokensAreListedAndRevoked(t *testing.T) {
	a := start(t, nil)
	made, err := a.CreateJoinToken(t.Context(), &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_SERVER, Uses: 1})
	if err != nil || made.GetToken() == "" || made.GetId() == "" {
		t.Fatalf("got %v, %v", made, err)
	}
	list, err := a.operator.ListJoinTokens(t.Context(), &weirv1.ListJoinTokensRequest{})
	if err != nil || len(list.GetTokens()) != 1 {
		t.Fatalf("got %v, %v", list, err)
	}
	if got := list.GetTokens()[0]; got.GetId() != made.GetId() || got.GetUses() != 1 || got.GetCreatedBy() != "loopback" {
		t.Errorf("got %v", got)
	}
	revoke := func(id string) error {
		_, err := a.operator.RevokeJoinToken(t.Context(), &weirv1.RevokeJoinTokenRequest{Id: id})
		return err
	}
	if err := revoke(made.GetId()); err != nil {
		t.Error(err)
	}
	requireCode(t, revoke(made.GetId()), connect.CodeNotFound, "there is no join token")
	requireCode(t, revoke(""), connect.CodeInvalidArgument, "which token")
}

func TestKeysRotate(t *testing.T) {
	a := start(t, nil)
	key, err := a.operator.RotateKey(t.Context(), &weirv1.RotateKeyRequest{})
	if err != nil || key.GetRotation().GetTo() != "key2" {
		t.Errorf("got %v, %v", key, err)
	}
	root, err := a.operator.RotateRoot(t.Context(), &weirv1.RotateRootRequest{})
	if err != nil || root.GetRotation().GetWhat() != weirv1.Rotation_ROOT {
		t.Errorf("got %v, %v", root, err)
	}
	drop := func(id string) error {
		_, err := a.operator.DropKey(t.Context(), &weirv1.DropKeyRequest{Id: id})
		return err
	}
	requireCode(t, drop(""), connect.CodeInvalidArgument, "which key")
	requireCode(t, drop("key2"), connect.CodeFailedPrecondition, "rotate first")
	if err := drop("key1"); err != nil {
		t.Error(err)
	}
	list, err := a.operator.ListKeys(t.Context(), &weirv1.ListKeysRequest{})
	if err != nil || len(list.GetKeys().GetKeys()) != 1 || len(list.GetKeys().GetRoots()) != 2 || len(list.GetKeys().GetRotations()) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
	without := start(t, func(c *admin.Config) { c.Keys = nil })
	_, err = without.operator.RotateKey(t.Context(), &weirv1.RotateKeyRequest{})
	requireCode(t, err, connect.CodeUnimplemented, "no keys")
}

func TestDoctor(t *testing.T) {
	a := start(t, nil)
	a.servers.Find(&weirv1.DoctorCheck{Layer: weirv1.DoctorCheck_UDP, Subject: "two", Result: weirv1.DoctorCheck_WARN, Message: "no answer over UDP"})
	look := func() map[weirv1.DoctorCheck_Layer]*weirv1.DoctorCheck {
		t.Helper()
		res, err := a.operator.Doctor(t.Context(), &weirv1.DoctorRequest{})
		if err != nil || res.GetMember() != "one" {
			t.Fatalf("got %v, %v", res, err)
		}
		found := map[weirv1.DoctorCheck_Layer]*weirv1.DoctorCheck{}
		last := weirv1.DoctorCheck_LAYER_UNSPECIFIED
		for _, c := range res.GetChecks() {
			if c.GetLayer() < last {
				t.Errorf("%s comes after %s", c.GetLayer(), last)
			}
			last = c.GetLayer()
			found[c.GetLayer()] = c
		}
		return found
	}
	for _, c := range []struct {
		name    string
		change  func(*weirv1.ClusterStatus)
		layer   weirv1.DoctorCheck_Layer
		result  weirv1.DoctorCheck_Result
		message string
	}{
		{"well", func(*weirv1.ClusterStatus) {}, weirv1.DoctorCheck_QUORUM, weirv1.DoctorCheck_OK, "one leads; 3 of 3 members reachable"},
		{"what the servers found", func(*weirv1.ClusterStatus) {}, weirv1.DoctorCheck_UDP, weirv1.DoctorCheck_WARN, "no answer over UDP"},
		{"one is away", func(s *weirv1.ClusterStatus) { s.ReachableVoters = 2 }, weirv1.DoctorCheck_QUORUM, weirv1.DoctorCheck_WARN, "one loss more"},
		{"a full disk", func(s *weirv1.ClusterStatus) { s.Impaired = "the disk is full" }, weirv1.DoctorCheck_QUORUM, weirv1.DoctorCheck_FAIL, "the disk is full"},
		{"one version behind", func(s *weirv1.ClusterStatus) { s.Members[2].Version = "v1.2.2" }, weirv1.DoctorCheck_VERSION, weirv1.DoctorCheck_WARN, "three has v1.2.2"},
		{"removed", func(s *weirv1.ClusterStatus) { s.Removed = true }, weirv1.DoctorCheck_QUORUM, weirv1.DoctorCheck_FAIL, "was removed"},
	} {
		a.servers.Set(c.change)
		if got := look()[c.layer]; got.GetResult() != c.result || !strings.Contains(got.GetMessage(), c.message) {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestModulesByDigest(t *testing.T) {
	a := start(t, nil)
	pushed, err := a.PushModule(t.Context(), &weirv1.PushModuleRequest{Module: module(3, 5)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.GetModule(t.Context(), &weirv1.GetModuleRequest{Digest: pushed.GetDigest()})
	if err != nil || string(got.GetModule()) != string(module(3, 5)) {
		t.Errorf("got %d bytes, %v", len(got.GetModule()), err)
	}
	_, err = a.GetModule(t.Context(), &weirv1.GetModuleRequest{Digest: "sha256:0"})
	requireCode(t, err, connect.CodeNotFound, "there is no module sha256:0")
	_, err = a.PushModule(t.Context(), &weirv1.PushModuleRequest{Module: []byte("GIF89a")})
	requireCode(t, err, connect.CodeInvalidArgument, "not a WASM module")
	_, err = a.PushModule(t.Context(), &weirv1.PushModuleRequest{})
	requireCode(t, err, connect.CodeInvalidArgument, "is empty")
	_, err = a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: read(t, "kind: Plugin\nmetadata: {name: a}\nspec: {module: AGFzbQ==}\n")})
	requireCode(t, err, connect.CodeInvalidArgument, "spec.module: is for files")
}

// Machines look at pages without a token; nobody else gets anything so.
func TestPages(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "weir_up 1\n") })
	a := start(t, func(c *admin.Config) { c.AllowLoopback, c.Metrics = false, metrics })
	look := func(path string) (int, string) {
		t.Helper()
		transport := &http.Transport{DisableKeepAlives: true}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, strings.TrimSpace(string(body))
	}
	expect := func(path string, code int, want string) {
		t.Helper()
		if got, body := look(path); got != code || !strings.Contains(body, want) {
			t.Errorf("%s: got %d %s, want %d %s", path, got, body, code, want)
		}
	}
	expect("/healthz", 200, "ok")
	expect("/livez", 200, "ok")
	expect("/readyz", 200, "ready")
	expect("/metrics", 200, "weir_up 1")
	expect(weirv1connect.AdminServiceGetStatusProcedure, 401, "a token is needed")
	a.servers.Set(func(s *weirv1.ClusterStatus) { s.Members[0].State = weirv1.ClusterMember_CATCHING_UP })
	expect("/readyz", 503, "just joined")
	a.servers.Lose(time.Second)
	expect("/readyz", 503, "no leader: 1 of 3 members reachable")
	expect("/healthz", 200, "ok")
}
