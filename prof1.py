import sys; sys.argv=['x','w=16','steps=1','s=1']
exec(open('/work/scratch/studio21/vae.py').read().split("if not steps:")[0])
from torch.profiler import profile, ProfilerActivity
one()[0].backward()
t=time.time(); L=one()[0]; print('fwd',time.time()-t); t=time.time(); L.backward(); print('bwd',time.time()-t)
with profile(activities=[ProfilerActivity.CPU],record_shapes=True) as p: one()[0].backward()
print(p.key_averages(group_by_input_shape=True).table(sort_by='self_cpu_time_total',row_limit=25,max_name_column_width=40,max_shapes_column_width=90))
