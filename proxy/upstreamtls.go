package proxy

import (
	"errors"
	"fmt"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/upstream"
	"github.com/weirmesh/weir/resource"
)

// spoken is what a service's protocol means to its connections.
var spoken = map[weirv1.ServiceSpec_Protocol]upstream.Protocol{
	weirv1.ServiceSpec_HTTP2: upstream.HTTP2,
	weirv1.ServiceSpec_HTTP3: upstream.HTTP3,
}

// compileUpstreamTLS is how a service's connections are secured, with the
// certificates that it refers to.
func (p *Proxy) compileUpstreamTLS(tenant string, spec *weirv1.ServiceSpec) (upstream.TLS, error) {
	declared := spec.GetTls()
	if declared == nil {
		return upstream.TLS{}, nil
	}
	t := upstream.TLS{On: true, ServerName: declared.GetHostname(), Insecure: declared.GetInsecureSkipVerify(),
		SubjectNames: strings.Join(declared.GetSubjectAltNames(), " ")}
	var authorities strings.Builder
	if pem := declared.GetCaCertificates(); pem != "" {
		parsed, err := resource.ParseAuthorities(pem)
		if err != nil {
			return upstream.TLS{}, fmt.Errorf("caCertificates: %w", err)
		}
		for _, c := range parsed {
			authorities.Write(c.Raw)
		}
	}
	for _, ref := range declared.GetCaCertificateRefs() {
		m, err := p.material(tenant, ref)
		if err != nil {
			return upstream.TLS{}, err
		}
		authorities.Write(m.GetChain()[len(m.GetChain())-1])
	}
	t.Authorities = authorities.String()
	if ref := declared.GetClientCertificateRef(); ref != nil {
		m, err := p.material(tenant, ref)
		if err != nil {
			return upstream.TLS{}, err
		}
		if len(m.GetKey()) == 0 {
			return upstream.TLS{}, errors.New("the client certificate's key did not come with it: the servers could not open it")
		}
		var chain strings.Builder
		for _, der := range m.GetChain() {
			chain.Write(der)
		}
		t.Chain, t.Key = chain.String(), string(m.GetKey())
	}
	_, err := t.Config("host:443", upstream.HTTP1) // what cannot be used is said now
	return t, err
}

func (p *Proxy) material(tenant string, ref *weirv1.CertificateRef) (*weirv1.CertificateMaterial, error) {
	to := resource.Ref{Kind: resource.KindCertificate, Tenant: tenant, Name: ref.GetName()}
	m := p.desired.resources[to].GetCertificate().GetMaterial()
	if len(m.GetChain()) == 0 {
		return nil, fmt.Errorf("%s is not there", to)
	}
	return m, nil
}
