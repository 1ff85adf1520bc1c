"""A simulation of one service and of many behind a load balancer: `rankone bench simulation`.

replica   one service: admission, decoders, batches; the rules are the service's own classes
fleet     many replicas, least connections, deaths and returns
loads     Poisson arrivals, and what became of the requests
report    held against the measured service, then at 1,000 times its rate
"""
