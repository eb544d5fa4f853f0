package fault

import (
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
)

func grpcStatus(code uint32) string { return strconv.FormatUint(uint64(code), 10) }

// AnswerGRPC makes the response one of gRPC that consists of its status alone
// ("Trailers-Only").
func AnswerGRPC(x *exchange.Exchange, status string) {
	x.Answer(200, nil)
	for _, f := range [][2]string{{"Content-Type", "application/grpc"}, {"Grpc-Status", status}, {"Grpc-Message", "fault injected"}} {
		x.Response.Fields.Add([]byte(f[0]), []byte(f[1]))
	}
}
