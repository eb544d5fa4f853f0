//go:build linux

package cluster

import (
	"context"
	"fmt"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// fill writes so many resources, each with so many bytes beside it, many to a
// transaction; and all of them again, as often as it is told. They are no part
// of a history, but members must agree on them.
func (c *cluster) fill(count, size, times int) {
	c.t.Helper()
	for round := range times {
		c.fillOnce(count, size, round)
	}
}

func (c *cluster) fillOnce(count, size, round int) {
	c.t.Helper()
	each := min(500, (256<<10)/(size+1), count)
	leader := c.leader()
	for from := 0; from < count; from += each {
		var resources []*weirv1.Resource
		for i := from; i < min(from+each, count); i++ {
			resources = append(resources, resource.Wrap(&weirv1.Service{
				Metadata: &weirv1.Metadata{Name: fmt.Sprintf("f-%d", i), Annotations: map[string]string{
					valueOf: fmt.Sprint(round), "ballast": strings.Repeat("x", size)}},
				Spec: &weirv1.ServiceSpec{},
			}))
		}
		await(c.t, "the cluster to be filled", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 5*callTime)
			defer cancel()
			_, err := leader.client.Apply(ctx, &weirv1.ApplyRequest{Resources: resources})
			return err
		})
	}
}
