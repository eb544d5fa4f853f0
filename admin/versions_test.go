package admin_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/internal/signature"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func digestOf(module []byte) string {
	sum := sha256.Sum256(module)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// signer has a key, and signs.
type signer struct {
	private ed25519.PrivateKey
	public  string
}

func newSigner(t *testing.T) signer {
	t.Helper()
	private, public, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := signature.ParsePrivate(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, string(public)}
}

func (s signer) sign(name string, module []byte) []*weirv1.PluginSignature {
	made := signature.Sign(s.private, name, digestOf(module))
	return []*weirv1.PluginSignature{{Key: made.Key, Signature: made.Bytes}}
}

func trustIn(keys map[string]*weirv1.PluginKey) *weirv1.Resource {
	spec := &weirv1.PluginTrustSpec{RequireSignatures: true}
	for name, key := range keys {
		key.Name = name
		spec.Keys = append(spec.Keys, key)
	}
	return resource.Wrap(&weirv1.PluginTrust{Metadata: &weirv1.Metadata{Name: "default"}, Spec: spec})
}

func (a *api) plugin(t *testing.T, name string) *weirv1.Plugin {
	t.Helper()
	got, err := a.Get(t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "Plugin", Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetResource().GetPlugin()
}

func refusedWith(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: got %v, want %q", what, err, want)
	}
}

func TestSignaturesAreAskedFor(t *testing.T) {
	a := start(t, nil)
	release, ci, other := newSigner(t), newSigner(t), newSigner(t)
	one, two := module(10, 1), module(10, 2)
	if _, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{trustIn(map[string]*weirv1.PluginKey{"release": {PublicKey: release.public}})}}); err != nil {
		t.Fatal(err)
	}
	push := func(name string, module []byte, signatures []*weirv1.PluginSignature) error {
		_, err := a.PushPlugin(t.Context(), &weirv1.PushPluginRequest{Name: name, Module: module, Signatures: signatures})
		return err
	}
	refusedWith(t, "unsigned", push("stamp", one, nil), "it is not signed; trusted are \"release\"")
	refusedWith(t, "another's key", push("stamp", one, other.sign("stamp", one)), "is not trusted")
	refusedWith(t, "for another name", push("stamp", one, release.sign("auth", one)), "is not for a plugin named stamp")
	refusedWith(t, "for other bytes", push("stamp", one, release.sign("stamp", two)), "is not for a plugin named stamp")
	refusedWith(t, "no signature at all", push("stamp", one, []*weirv1.PluginSignature{{Key: "x", Signature: []byte("y")}}), "names no key")
	if got := len(a.cluster.Commands()); got != 1 {
		t.Errorf("%d commands: something was stored", got)
	}
	if err := push("stamp", one, release.sign("stamp", one)); err != nil {
		t.Fatal(err)
	}
	// A declaration is judged as a push is.
	if _, err := a.PushModule(t.Context(), &weirv1.PushModuleRequest{Module: two}); err != nil {
		t.Fatal(err)
	}
	declared := &weirv1.Plugin{Metadata: &weirv1.Metadata{Name: "stamp"}, Spec: &weirv1.PluginSpec{Digest: digestOf(two)}}
	apply := func(resources ...*weirv1.Resource) error {
		_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: resources})
		return err
	}
	refusedWith(t, "declared unsigned", apply(resource.Wrap(declared)), "spec.signatures: is refused: it is not signed")
	declared.Spec.Signatures = release.sign("stamp", two)
	if err := apply(resource.Wrap(proto.CloneOf(declared))); err != nil {
		t.Fatal(err)
	}
	// What is declared together counts together; what stays is not judged anew.
	onlyCI := trustIn(map[string]*weirv1.PluginKey{"ci": {PublicKey: ci.public}})
	if err := apply(onlyCI, resource.Wrap(proto.CloneOf(declared))); err != nil {
		t.Errorf("what is in force already: %v", err)
	}
	refusedWith(t, "the key was taken out", push("stamp", one, release.sign("stamp", one)), "is not trusted; trusted are \"ci\"")
	_, err := a.RollbackPlugin(t.Context(), &weirv1.RollbackPluginRequest{Name: "stamp"})
	refusedWith(t, "a version of before that only that key signed", err, "is not trusted")
	// A second signature is added to the first.
	if err := push("stamp", two, ci.sign("stamp", two)); err != nil {
		t.Fatal(err)
	}
	if got := a.plugin(t, "stamp").GetSpec().GetSignatures(); len(got) != 2 {
		t.Errorf("signed by %v", got)
	}
	expired := trustIn(map[string]*weirv1.PluginKey{"ci": {PublicKey: ci.public, NotAfter: timestamppb.New(time.Now().Add(-time.Hour))}})
	if err := apply(expired); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, "the key may sign nothing more", push("stamp", one, ci.sign("stamp", one)), `may sign nothing more: "ci"`)
}

func TestPluginTrustIsChecked(t *testing.T) {
	a := start(t, nil)
	key := newSigner(t).public
	for want, trust := range map[string]*weirv1.PluginTrust{
		`metadata.name: must be "default"`:   {Metadata: &weirv1.Metadata{Name: "other"}},
		"spec.keys[0].publicKey: must be":    {Metadata: &weirv1.Metadata{Name: "default"}, Spec: &weirv1.PluginTrustSpec{Keys: []*weirv1.PluginKey{{Name: "a", PublicKey: "x"}}}},
		`spec.keys[1].publicKey: the key "e`: {Metadata: &weirv1.Metadata{Name: "default"}, Spec: &weirv1.PluginTrustSpec{Keys: []*weirv1.PluginKey{{Name: "a", PublicKey: key}, {Name: "b", PublicKey: key}}}},
		"spec.keys[0].name: ":                {Metadata: &weirv1.Metadata{Name: "default"}, Spec: &weirv1.PluginTrustSpec{Keys: []*weirv1.PluginKey{{PublicKey: key}}}},
	} {
		_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{resource.Wrap(trust)}})
		refusedWith(t, want, err, want)
	}
}

func digests(p *weirv1.Plugin) (all []string) {
	for _, v := range p.GetStatus().GetVersions() {
		all = append(all, v.GetDigest())
	}
	return all
}

func TestVersionsAreKept(t *testing.T) {
	a := start(t, nil)
	var pushed []string
	for i := range 12 {
		m := module(10, byte(i))
		pushed = append([]string{digestOf(m)}, pushed...)
		a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: m, Labels: map[string]string{"n": fmt.Sprint(i)}})
	}
	p := a.plugin(t, "stamp")
	if got := digests(p); !slices.Equal(got, pushed[:10]) {
		t.Errorf("got %q, want the newest ten, the newest first", got)
	}
	if v := p.GetStatus().GetVersions()[0]; v.GetSizeBytes() == 0 || v.GetAbi() != "0.2.1" || v.GetTime() == nil || v.GetActor() == "" {
		t.Errorf("the newest is %v", v)
	}
	for i, digest := range pushed {
		_, err := a.GetModule(t.Context(), &weirv1.GetModuleRequest{Digest: digest})
		if kept := err == nil; kept != (i < 10) {
			t.Errorf("version %d: its module is kept: %v", i, kept)
		}
	}
	rollback := func(to string) (*weirv1.RollbackPluginResponse, error) {
		return a.RollbackPlugin(t.Context(), &weirv1.RollbackPluginRequest{Name: "stamp", Digest: to})
	}
	back, err := rollback("")
	if err != nil || back.GetPlugin().GetSpec().GetDigest() != pushed[1] || back.GetPlugin().GetMetadata().GetLabels()["n"] != "11" {
		t.Fatalf("got %v, %v", back, err)
	}
	if got := digests(back.GetPlugin()); !slices.Equal(got[:3], []string{pushed[1], pushed[0], pushed[2]}) || len(got) != 10 {
		t.Errorf("after the rollback: %q", got)
	}
	if back, err = rollback(pushed[7][:20]); err != nil || back.GetPlugin().GetSpec().GetDigest() != pushed[7] {
		t.Errorf("got %v, %v", back.GetPlugin().GetSpec(), err)
	}
	if back, err = rollback(strings.TrimPrefix(pushed[3], "sha256:")[:10]); err != nil || back.GetPlugin().GetSpec().GetDigest() != pushed[3] {
		t.Errorf("got %v, %v", back.GetPlugin().GetSpec(), err)
	}
	_, err = rollback("sha256:")
	refusedWith(t, "what several begin with", err, "10 of its versions begin with")
	_, err = rollback(pushed[11])
	refusedWith(t, "what is not kept", err, "0 of its versions begin with")
	_, err = a.RollbackPlugin(t.Context(), &weirv1.RollbackPluginRequest{Name: "stmp"})
	refusedWith(t, "what is not there", err, "it is not there")
	a.push(t, &weirv1.PushPluginRequest{Name: "first", Module: module(10, 1)})
	_, err = a.RollbackPlugin(t.Context(), &weirv1.RollbackPluginRequest{Name: "first"})
	refusedWith(t, "the first version", err, "has no version before")
	// With the plugin go its modules.
	if _, err := a.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "Plugin", Name: "stamp"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.GetModule(t.Context(), &weirv1.GetModuleRequest{Digest: pushed[2]}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("got %v", err)
	}
}

func TestCanary(t *testing.T) {
	a := start(t, nil)
	old, new, third := module(10, 1), module(10, 2), module(10, 3)
	_, err := a.PushPlugin(t.Context(), &weirv1.PushPluginRequest{Name: "stamp", Module: new, CanaryPercent: 5})
	refusedWith(t, "a canary of nothing", err, "nothing is in force under the name")
	a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: old, Limits: &weirv1.PluginLimits{Fuel: 7}})
	_, err = a.PushPlugin(t.Context(), &weirv1.PushPluginRequest{Name: "stamp", Module: new, CanaryPercent: 101})
	refusedWith(t, "too much", err, "canary_percent: must be more than 0 and at most 100")
	_, err = a.PushPlugin(t.Context(), &weirv1.PushPluginRequest{Name: "stamp", Module: old, CanaryPercent: 5})
	refusedWith(t, "itself", err, "is the module in force itself")
	_, err = a.PromotePlugin(t.Context(), &weirv1.PromotePluginRequest{Name: "stamp"})
	refusedWith(t, "nothing to promote", err, "has no canary")

	p := a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: new, CanaryPercent: 5}).GetPlugin()
	trial := p.GetStatus().GetTrial()
	if p.GetSpec().GetDigest() != digestOf(old) || p.GetSpec().GetLimits().GetFuel() != 7 || trial.GetDigest() != digestOf(new) ||
		trial.GetState() != weirv1.PluginTrial_RUNNING || len(p.GetStatus().GetVersions()) != 1 {
		t.Fatalf("got %v", p)
	}
	// Applying what is there, as files do, changes nothing.
	same, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{resource.Wrap(&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: "stamp"}, Spec: p.GetSpec()})}})
	if err != nil || same.GetResults()[0].GetOutcome() != weirv1.ApplyResult_UNCHANGED {
		t.Fatalf("got %v, %v", same, err)
	}
	promote := func(percent float64, force bool) (*weirv1.Plugin, error) {
		got, err := a.PromotePlugin(t.Context(), &weirv1.PromotePluginRequest{Name: "stamp", CanaryPercent: percent, Force: force})
		return got.GetPlugin(), err
	}
	if p, err = promote(25, false); err != nil || p.GetSpec().GetCanary().GetPercent() != 25 || proto.Equal(p.GetStatus().GetTrial().GetStartTime(), trial.GetStartTime()) {
		t.Fatalf("got %v, %v: the trial begins anew", p, err)
	}
	// The servers abort it.
	aborted := proto.CloneOf(p)
	aborted.Status.Trial.State, aborted.Status.Trial.Reason = weirv1.PluginTrial_ABORTED, "3 failures"
	a.propose(t, &weirv1.Transact{Puts: []*weirv1.Resource{resource.Wrap(aborted)}})
	_, err = promote(0, false)
	refusedWith(t, "what was aborted", err, "was aborted: 3 failures")
	same, err = a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{resource.Wrap(&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: "stamp"}, Spec: p.GetSpec()})}})
	if err != nil || same.GetResults()[0].GetResource().GetPlugin().GetStatus().GetTrial().GetState() != weirv1.PluginTrial_ABORTED {
		t.Errorf("a file that still has it begins it anew: %v, %v", same, err)
	}
	if p, err = promote(25, false); err != nil || p.GetStatus().GetTrial().GetState() != weirv1.PluginTrial_RUNNING {
		t.Fatalf("the same again: %v, %v", p.GetStatus(), err)
	}
	if p, err = promote(0, false); err != nil || p.GetSpec().GetDigest() != digestOf(new) || p.GetSpec().GetCanary() != nil ||
		p.GetStatus().GetTrial().GetState() != weirv1.PluginTrial_PROMOTED || !slices.Equal(digests(p), []string{digestOf(new), digestOf(old)}) {
		t.Fatalf("got %v, %v", p, err)
	}
	// A rollback ends a canary first.
	a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: third, CanaryPercent: 5})
	back, err := a.RollbackPlugin(t.Context(), &weirv1.RollbackPluginRequest{Name: "stamp"})
	if p = back.GetPlugin(); err != nil || p.GetSpec().GetDigest() != digestOf(new) || p.GetSpec().GetCanary() != nil || p.GetStatus().GetTrial().GetState() != weirv1.PluginTrial_ENDED {
		t.Errorf("got %v, %v", p, err)
	}
	if _, err := a.GetModule(t.Context(), &weirv1.GetModuleRequest{Digest: digestOf(third)}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("a canary that was never in force is kept: %v", err)
	}
	back, err = a.RollbackPlugin(t.Context(), &weirv1.RollbackPluginRequest{Name: "stamp"})
	if err != nil || back.GetPlugin().GetSpec().GetDigest() != digestOf(old) {
		t.Errorf("got %v, %v", back, err)
	}
}

// propose decides a transaction as the cluster does, past the admin API.
func (a *api) propose(t *testing.T, tx *weirv1.Transact) {
	t.Helper()
	if _, err := a.cluster.Propose(context.Background(), &weirv1.Command{Id: t.Name(), Time: timestamppb.Now(),
		Action: &weirv1.Command_TransactVersions{TransactVersions: tx}}); err != nil {
		t.Fatal(err)
	}
}

// While a member of an earlier version is there, plugins go on as before, without
// versions; what would need them is refused in words.
func TestBesideEarlierVersions(t *testing.T) {
	a := start(t, nil)
	a.cluster.Older(func(c *weirv1.Command) error {
		if c.GetTransactVersions() != nil {
			return fmt.Errorf("propose: %w: b must be upgraded first", admin.ErrTooNew)
		}
		return nil
	})
	a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: module(10, 1)})
	if p := a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: module(10, 2)}).GetPlugin(); len(digests(p)) != 0 || p.GetSpec().GetDigest() != digestOf(module(10, 2)) {
		t.Errorf("got %v", p)
	}
	_, err := a.PushPlugin(t.Context(), &weirv1.PushPluginRequest{Name: "stamp", Module: module(10, 3), CanaryPercent: 5})
	refusedWith(t, "a canary", err, "b must be upgraded first")
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("got %v", connect.CodeOf(err))
	}
	_, err = a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{trustIn(nil)}})
	refusedWith(t, "trust", err, "b must be upgraded first")
	a.cluster.Older(nil)
	if p := a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: module(10, 3)}).GetPlugin(); !slices.Equal(digests(p), []string{digestOf(module(10, 3)), digestOf(module(10, 2))}) {
		t.Errorf("got %q", digests(p))
	}
}
