package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	grpchealth "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/upstream"
)

func (q *Question) askGRPC(ctx context.Context, key upstream.Key) error {
	message, err := proto.Marshal(&grpchealth.HealthCheckRequest{Service: q.GRPC.Service})
	if err != nil {
		return fmt.Errorf("write call: %w", err)
	}
	x := newExchange("POST", grpchealth.Health_Check_FullMethodName, q.GRPC.Authority, key)
	x.Request.Trailing = true
	x.Request.Fields.Add([]byte("Content-Type"), []byte("application/grpc"))
	if deadline, ok := ctx.Deadline(); ok {
		left := max(time.Until(deadline).Milliseconds(), 1)
		x.Request.Fields.Add([]byte("Grpc-Timeout"), append(strconv.AppendInt(nil, min(left, maxTimeout), 10), 'm'))
	}
	x.Request.Body = exchange.Bytes(appendMessage(nil, message))
	return q.Pools.Probe(ctx, key, x, func() error { return judgeCall(&x.Response) })
}

// maxTimeout has the eight digits that grpc-timeout may have.
const maxTimeout = 99_999_999

func appendMessage(b, message []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, 0), uint32(len(message)))
	return append(b, message...)
}

// judgeCall reads the answer to the call.
func judgeCall(r *exchange.Response) error {
	if r.Status != 200 {
		return fmt.Errorf("it answers %d", r.Status)
	}
	if kind := string(r.Fields.Get("content-type")); !strings.HasPrefix(kind, "application/grpc") {
		return fmt.Errorf("it answers with %q, which is not gRPC", kind)
	}
	answer, err := readAll(r.Body)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	said := &r.Trailers
	if !said.Has("grpc-status") { // an answer without a message has all in its head
		said = &r.Fields
	}
	if status := string(said.Get("grpc-status")); status != "0" {
		return fmt.Errorf("it answers with gRPC status %q: %s", status, said.Get("grpc-message"))
	}
	return judgeAnswer(answer)
}

// judgeAnswer reads the one message of the answer, with its prefix.
func judgeAnswer(b []byte) error {
	if len(b) < 5 || b[0] != 0 || uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-5) {
		return errors.New("its answer is not one message of gRPC")
	}
	var answer grpchealth.HealthCheckResponse
	if err := proto.Unmarshal(b[5:], &answer); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if answer.GetStatus() != grpchealth.HealthCheckResponse_SERVING {
		return fmt.Errorf("it is %s", answer.GetStatus())
	}
	return nil
}
