module zenvoy.dev/testcluster/web

go 1.24
