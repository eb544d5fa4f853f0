package admin_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/consumer/apikey"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// A key is made for an App that there is, shown once and stored as its sum.
func TestCreateCredential(t *testing.T) {
	a := start(t, nil)
	declare := func(names ...string) {
		t.Helper()
		for _, name := range names {
			app := resource.Wrap(&weirv1.App{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.AppSpec{}})
			if _, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{app}}); err != nil {
				t.Fatal(err, a.log.String())
			}
		}
	}
	long := strings.Repeat("a", 55) + "-" + "bbbbbbb"
	declare("demo", long)
	for name, c := range map[string]struct {
		req  *weirv1.CreateCredentialRequest
		want string // what its name begins with, or the error
		code connect.Code
	}{
		"a key":              {req: &weirv1.CreateCredentialRequest{App: "demo"}, want: "demo-"},
		"of a name":          {req: &weirv1.CreateCredentialRequest{App: "demo", Name: "laptop"}, want: "laptop"},
		"that ends":          {req: &weirv1.CreateCredentialRequest{App: "demo", ExpireTime: timestamppb.New(time.Now().Add(time.Hour))}, want: "demo-"},
		"of a long App":      {req: &weirv1.CreateCredentialRequest{App: long}, want: strings.Repeat("a", 55) + "-"},
		"of no App":          {req: &weirv1.CreateCredentialRequest{}, want: "app: is required", code: connect.CodeInvalidArgument},
		"of another App":     {req: &weirv1.CreateCredentialRequest{App: "nobody"}, want: "app: there is no App nobody in tenant default", code: connect.CodeInvalidArgument},
		"of another tenant":  {req: &weirv1.CreateCredentialRequest{App: "demo", Tenant: "acme"}, want: "app: there is no App demo in tenant acme", code: connect.CodeInvalidArgument},
		"of no App's name":   {req: &weirv1.CreateCredentialRequest{App: "A_b"}, want: "app: there is no App A_b", code: connect.CodeInvalidArgument},
		"of a wrong name":    {req: &weirv1.CreateCredentialRequest{App: "demo", Name: "A_b"}, want: "name: ", code: connect.CodeInvalidArgument},
		"that has ended":     {req: &weirv1.CreateCredentialRequest{App: "demo", ExpireTime: timestamppb.New(time.Now().Add(-time.Second))}, want: "expire_time: must be to come", code: connect.CodeInvalidArgument},
		"of no time at all":  {req: &weirv1.CreateCredentialRequest{App: "demo", ExpireTime: &timestamppb.Timestamp{Seconds: 1 << 60}}, want: "expire_time: ", code: connect.CodeInvalidArgument},
		"of a wrong tenancy": {req: &weirv1.CreateCredentialRequest{App: "demo", Tenant: "A_b"}, want: "app: there is no App", code: connect.CodeInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			made, err := a.CreateCredential(t.Context(), c.req)
			if c.code != 0 {
				if connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			sum, spec := apikey.Sum(made.GetKey()), made.GetCredential().GetSpec()
			if spec.GetSha256() != hex.EncodeToString(sum[:]) || !strings.HasPrefix(made.GetKey(), spec.GetPrefix()) || len(spec.GetPrefix()) != 12 {
				t.Errorf("of the key %s is kept %v", made.GetKey(), spec)
			}
			ref := resource.Of(resource.Wrap(made.GetCredential()))
			if !strings.HasPrefix(ref.Name, c.want) || made.GetRevision() == 0 || made.GetCredential().GetMetadata().GetRevision() != made.GetRevision() {
				t.Errorf("got %v", made)
			}
			got, err := a.Get(t.Context(), &weirv1.GetRequest{Ref: ref.Proto()})
			if err != nil || strings.Contains(got.String(), made.GetKey()) {
				t.Errorf("got %v, %v", got, err)
			}
			if !strings.Contains(a.log.String(), "resource=\"Credential "+ref.Name+"\"") || strings.Contains(a.log.String(), made.GetKey()) {
				t.Errorf("the log has %s", a.log)
			}
		})
	}
	if _, err := a.CreateCredential(t.Context(), &weirv1.CreateCredentialRequest{App: "demo", Name: "laptop"}); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("a name that is taken: %v", err)
	}
	_, err := a.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "App", Name: "demo"}}})
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "Credential demo-") {
		t.Errorf("an App that has keys: %v", err)
	}
}

// Of those who make a key of one name at the same time one gets it, and the others are
// told: none has a key in hand that was replaced.
func TestCredentialsOfOneName(t *testing.T) {
	a := start(t, nil)
	app := resource.Wrap(&weirv1.App{Metadata: &weirv1.Metadata{Name: "demo"}, Spec: &weirv1.AppSpec{}})
	if _, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{app}}); err != nil {
		t.Fatal(err)
	}
	for round := range 20 {
		name := fmt.Sprint("key-", round)
		var racing sync.WaitGroup
		begin, made := make(chan struct{}), make(chan *weirv1.CreateCredentialResponse, 8)
		for range cap(made) {
			racing.Go(func() {
				<-begin
				got, err := a.CreateCredential(t.Context(), &weirv1.CreateCredentialRequest{App: "demo", Name: name})
				switch {
				case err == nil:
					made <- got
				case connect.CodeOf(err) != connect.CodeAlreadyExists || !strings.Contains(err.Error(), "there is a Credential "+name+" already"):
					t.Errorf("refused with %v", err)
				}
			})
		}
		close(begin)
		racing.Wait()
		if len(made) != 1 {
			t.Fatalf("%d have made it", len(made))
		}
		kept, err := a.Get(t.Context(), &weirv1.GetRequest{Ref: resource.Ref{Kind: resource.KindCredential, Tenant: "default", Name: name}.Proto()})
		sum := apikey.Sum((<-made).GetKey())
		if err != nil || kept.GetResource().GetCredential().GetSpec().GetSha256() != hex.EncodeToString(sum[:]) {
			t.Errorf("kept is %v, %v", kept, err)
		}
	}
}

// Beside a member of an earlier version a key is made as that one knows it.
func TestCredentialBesideAnEarlierVersion(t *testing.T) {
	a := start(t, nil)
	a.cluster.Older(func(c *weirv1.Command) error {
		if c.GetCreate() != nil {
			return fmt.Errorf("propose: %w: b must be upgraded first", admin.ErrTooNew)
		}
		return nil
	})
	app := resource.Wrap(&weirv1.App{Metadata: &weirv1.Metadata{Name: "demo"}, Spec: &weirv1.AppSpec{}})
	if _, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{app}}); err != nil {
		t.Fatal(err)
	}
	req := &weirv1.CreateCredentialRequest{App: "demo", Name: "laptop"}
	if _, err := a.CreateCredential(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if _, err := a.CreateCredential(t.Context(), req); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("a name that is taken: %v", err)
	}
}
