package proxy_test

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
