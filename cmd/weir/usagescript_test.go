package main

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/admin/admintest"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// setUsed has a proxy report what it has counted.
func setUsed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: used TIME SUBSCRIPTION API/OPERATION CLASS COUNT")
	}
	at, err := time.Parse("2006-01-02T15:04", args[0])
	ts.Check(err)
	class, err := strconv.ParseUint(args[3], 10, 32)
	ts.Check(err)
	count, err := strconv.ParseUint(args[4], 10, 64)
	ts.Check(err)
	app, _, _ := strings.Cut(args[1], "-")
	api, operation, _ := strings.Cut(args[2], "/")
	cluster := ts.Value("cluster").(*admintest.Cluster)
	number := uint64(len(cluster.Commands()) + 1)
	_, err = cluster.Propose(context.Background(), &weirv1.Command{Time: timestamppb.New(at), Action: &weirv1.Command_ApplyUsage{ApplyUsage: &weirv1.ApplyUsage{
		Node: "edge/e1", Segments: []*weirv1.UsageSegment{{Epoch: binary.BigEndian.AppendUint64(make([]byte, 8), 1), Sequence: number, Oldest: number,
			Counts: []*weirv1.UsageCount{{Tenant: "default", App: app, Subscription: args[1], Api: api, Operation: operation,
				StatusClass: uint32(class), Hour: at.Unix() / 3600, Count: count}}}}}}})
	ts.Check(err)
}
