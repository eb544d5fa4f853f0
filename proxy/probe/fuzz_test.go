package probe

import (
	"testing"

	grpchealth "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

// Of all answers, those that say SERVING in one whole message are taken for it.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{"", "\x00\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x02\x08\x02", "\x01\x00\x00\x00\x00", "\x00\xff\xff\xff\xff\x08\x01"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if judgeAnswer(b) != nil {
			return
		}
		var said grpchealth.HealthCheckResponse
		if err := proto.Unmarshal(b[5:], &said); err != nil || said.GetStatus() != grpchealth.HealthCheckResponse_SERVING {
			t.Errorf("%x says %v, %v", b, said.GetStatus(), err)
		}
		if again, _ := proto.Marshal(&said); judgeAnswer(appendMessage(nil, again)) != nil {
			t.Errorf("%x is SERVING, but not when it is written anew", b)
		}
	})
}
