package canary

import "github.com/weirmesh/weir/policy"

var _ policy.ConnectionPolicy = (*Policy)(nil)

// Connects implements policy.ConnectionPolicy: what carries no HTTP goes by the stable
// version, for nothing that ends well or badly could be counted on it.
func (p *Policy) Connects() bool {
	c, ok := p.stable.(policy.ConnectionPolicy)
	return ok && c.Connects()
}

// NewConnectionFilter implements policy.ConnectionPolicy.
func (p *Policy) NewConnectionFilter() policy.ConnectionFilter {
	return p.stable.(policy.ConnectionPolicy).NewConnectionFilter()
}
