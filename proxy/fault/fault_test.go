package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/fault"
)

func percent(p float64) *float64 { return &p }

func TestJudge(t *testing.T) {
	grpc := uint32(7)
	second := durationpb.New(time.Second)
	header := func(value string, kind weirv1.HeaderMatch_Type) []*weirv1.HeaderMatch {
		return []*weirv1.HeaderMatch{{Name: "X-Chaos", Value: value, Type: kind}}
	}
	for _, c := range []struct {
		name  string
		specs []*weirv1.Fault
		draws []float64
		want  fault.Verdict
		told  string
	}{
		{"all of them, undrawn", []*weirv1.Fault{{Delay: &weirv1.FaultDelay{Fixed: second}, Abort: &weirv1.FaultAbort{Status: 500},
			Bandwidth: &weirv1.FaultBandwidth{BytesPerSecond: 9}, Disconnect: &weirv1.FaultDisconnect{}}}, nil,
			fault.Verdict{Delay: time.Second, Status: 500, Bandwidth: 9, Disconnect: true}, "[delay abort bandwidth disconnect]"},
		{"each kind is drawn by itself", []*weirv1.Fault{{Delay: &weirv1.FaultDelay{Fixed: second, Percent: percent(10)}, Abort: &weirv1.FaultAbort{GrpcStatus: &grpc, Percent: percent(10)}}},
			[]float64{0.1, 0.0999}, fault.Verdict{GRPCStatus: "7"}, "[abort]"},
		{"a fraction of a percent", []*weirv1.Fault{{Disconnect: &weirv1.FaultDisconnect{Percent: percent(0.1)}}}, []float64{0.0009}, fault.Verdict{Disconnect: true}, "[disconnect]"},
		{"nought percent is not drawn", []*weirv1.Fault{{Disconnect: &weirv1.FaultDisconnect{Percent: percent(0)}}}, nil, fault.Verdict{}, "[]"},
		{"delays add up, the narrowest band counts", []*weirv1.Fault{{Delay: &weirv1.FaultDelay{Fixed: second}, Bandwidth: &weirv1.FaultBandwidth{BytesPerSecond: 9}},
			{Delay: &weirv1.FaultDelay{Fixed: second}, Bandwidth: &weirv1.FaultBandwidth{BytesPerSecond: 7}}}, nil,
			fault.Verdict{Delay: 2 * time.Second, Bandwidth: 7}, "[delay bandwidth delay bandwidth]"},
		{"a header", []*weirv1.Fault{{Headers: header("a, b", weirv1.HeaderMatch_EXACT), Abort: &weirv1.FaultAbort{Status: 500}}}, nil, fault.Verdict{Status: 500}, "[abort]"},
		{"another value", []*weirv1.Fault{{Headers: header("a", weirv1.HeaderMatch_EXACT), Abort: &weirv1.FaultAbort{Status: 500}}}, nil, fault.Verdict{}, "[]"},
		{"an expression is for all of the value", []*weirv1.Fault{{Headers: header("a", weirv1.HeaderMatch_REGULAR_EXPRESSION), Abort: &weirv1.FaultAbort{Status: 500}}}, nil, fault.Verdict{}, "[]"},
		{"an expression", []*weirv1.Fault{{Headers: header("a.*|c", weirv1.HeaderMatch_REGULAR_EXPRESSION), Abort: &weirv1.FaultAbort{Status: 500}}}, nil, fault.Verdict{Status: 500}, "[abort]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := new(exchange.Exchange)
			x.Request.Fields.Add([]byte("x-chaos"), []byte("a"))
			x.Request.Fields.Add([]byte("X-Chaos"), []byte("b"))
			var v fault.Verdict
			told := []fault.Kind{}
			draws := c.draws
			for _, spec := range c.specs {
				r, err := fault.New(spec)
				if err != nil {
					t.Fatal(err)
				}
				r.Judge(x, &v, func() float64 {
					if len(draws) == 0 {
						t.Fatal("there is nothing to draw for")
					}
					d := draws[0]
					draws = draws[1:]
					return d
				}, func(k fault.Kind) { told = append(told, k) })
			}
			if v != c.want || fmt.Sprint(told) != c.told {
				t.Errorf("got %+v, told %v", v, told)
			}
		})
	}
	if _, err := fault.New(&weirv1.Fault{Headers: header("(", weirv1.HeaderMatch_REGULAR_EXPRESSION)}); err == nil {
		t.Error("an expression that is none is compiled")
	}
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		body := fault.NewThrottle(t.Context(), exchange.Bytes([]byte(strings.Repeat("x", 1000))), 100)
		if body.Length() != 1000 {
			t.Errorf("%d bytes are announced", body.Length())
		}
		got := 0
		for {
			chunk, err := body.Next()
			if err == io.EOF {
				break
			}
			if got += len(chunk); err != nil || len(chunk) > 2 || body.Length() != int64(1000-got) {
				t.Fatalf("%d bytes at once, %d left, %v", len(chunk), body.Length(), err)
			}
		}
		if took := time.Since(began); got != 1000 || took < 9900*time.Millisecond || took > 10*time.Second {
			t.Errorf("%d bytes took %s", got, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		body = fault.NewThrottle(ctx, exchange.Bytes([]byte("ab")), 1)
		_, _ = body.Next()
		_, _ = body.Next() // the second byte, a second later
		<-ctx.Done()
		body = fault.NewThrottle(ctx, exchange.Bytes([]byte("ab")), 1)
		if _, err := body.Next(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a client that has gone is sent to: %v", err)
		}
	})
}
