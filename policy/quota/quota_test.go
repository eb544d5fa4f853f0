package quota

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/quota"
)

// start makes the policy before servers that grant all that is asked for; remaining is
// what they say nobody holds.
func start(t testing.TB, remaining uint64) policy.Policy {
	client := quota.New(slog.New(slog.DiscardHandler))
	client.Through(func(_ context.Context, m *weirv1.LeaseTokensRequest) (*weirv1.LeaseTokensResponse, error) {
		answer := &weirv1.LeaseTokensResponse{}
		for _, a := range m.GetAsks() {
			answer.Grants = append(answer.Grants, &weirv1.LeaseGrant{WindowStart: 60, WindowSeconds: 3600, Held: a.GetHeld() + min(remaining, 1_000_000),
				Lasts: durationpb.New(time.Hour), Ends: durationpb.New(time.Hour), Remaining: remaining})
		}
		return answer, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = client.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	made, err := NewHost(client).Make(t.Context(), policy.Spec{Tenant: "default", Name: "books", Native: policy.Quota}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func caller() *exchange.Consumer {
	return &exchange.Consumer{Tenant: "default", Subscription: "demo-free", Limits: []exchange.Limit{
		{Name: "minute", Requests: 1 << 40, Window: time.Minute, Exact: true}, {Name: "day", Requests: 1 << 40, Window: 24 * time.Hour, Exact: true}}}
}

// The host makes no other policy.
func TestMake(t *testing.T) {
	if _, err := NewHost(nil).Make(t.Context(), policy.Spec{Native: policy.Contract}, nil); err == nil {
		t.Error("it makes a contract")
	}
}

// What was waited for in vain until the exchange's end is a failure of its own.
func TestNoMoreTime(t *testing.T) {
	f := start(t, 0).NewFilter()
	x := &exchange.Exchange{Consumer: caller(), Deadline: time.Now()}
	if err := f.Begin(x); err != nil {
		t.Fatal(err)
	}
	defer f.Close(x)
	if _, err := f.OnRequest(x, true); err == nil || !strings.Contains(err.Error(), policy.ErrWaited.Error()) {
		t.Errorf("got %v", err)
	}
}

// Once warm, an exchange that is admitted costs no memory that must be found again.
func TestAdmittedAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector pools forget on purpose")
	}
	f, who, x := start(t, 1<<40).NewFilter(), caller(), new(exchange.Exchange)
	pass := func() {
		x.Reset()
		x.Consumer = who
		x.Response.Status = 200
		if err := f.Begin(x); err != nil {
			t.Fatal(err)
		}
		if verdict, err := f.OnRequest(x, true); verdict != policy.Continue || err != nil {
			body, _ := io.ReadAll(reader{x.Response.Body})
			t.Fatalf("got %v, %v: %s", verdict, err, body)
		}
		if verdict, err := f.OnResponse(x, true); verdict != policy.Continue || err != nil {
			t.Fatalf("got %v, %v", verdict, err)
		}
		f.Close(x)
	}
	pass()
	if n := testing.AllocsPerRun(1000, pass); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
	if got := string(x.Response.Fields.Get("RateLimit-Policy")); got != `"minute";q=1099511627776;w=60, "day";q=1099511627776;w=86400` {
		t.Errorf("the policy is %s", got)
	}
}

type reader struct{ exchange.Body }

func (r reader) Read(p []byte) (int, error) {
	if r.Body == nil {
		return 0, io.EOF
	}
	chunk, err := r.Next()
	return copy(p, chunk), err
}
