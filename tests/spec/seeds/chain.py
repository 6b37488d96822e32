"""Tasks in a Dag, and the plan of one."""

import argosy as sky

with sky.Dag() as dag:
    fetch = sky.Task("fetch", run="python fetch.py")
    fit = sky.Task("fit", run="python fit.py").set_resources(sky.Resources(accelerators={"A100": 8}))
    fetch >> fit
with sky.Dag() as alone:
    task = sky.Task("alone", run="echo alone").set_resources(
        {sky.Resources(cpus="4+"), sky.Resources(cpus="8+")}
    )
plan = sky.optimize(alone)
